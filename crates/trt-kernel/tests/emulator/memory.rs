//! Memory by address: global regions with gaps between, shared arrays with gaps between, and
//! the parameters. An access is inside of one of them, aligned, allowed and ordered, or an error.

use super::error::Why;
use super::inst::{Program, Space};
use super::race::{Fresh, Shadow, Who};

/// What a launch may do with a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    /// Readable as it was given, and writable.
    Write,
    /// Writable, and readable where it was written.
    Scratch,
}

/// Some bytes at an address.
#[derive(Debug)]
pub struct Region {
    pub name: String,
    pub base: u64,
    pub bytes: Vec<u8>,
    access: Access,
    /// Whether it is there before the launch ahead has ended.
    pub early: bool,
    shadow: Option<Shadow>,
}

impl Region {
    pub fn new(name: &str, base: u64, bytes: Vec<u8>, access: Access) -> Region {
        let fresh = match access {
            Access::Read => None,
            Access::Write => Some(Fresh::Always),
            Access::Scratch => Some(Fresh::Written),
        };
        Region {
            name: name.into(),
            base,
            access,
            early: false,
            shadow: fresh.map(|f| Shadow::new(f, bytes.len())),
            bytes,
        }
    }

    /// Fails if the launch ahead may still use it.
    fn there(&self, who: &Who, at: usize) -> Result<(), Why> {
        match who.waited || self.early {
            true => Ok(()),
            false => Err(Why::Wrong(format!(
                "{} is used before griddepcontrol.wait",
                self.place(at)
            ))),
        }
    }

    fn place(&self, at: usize) -> Box<str> {
        format!("{}+{at}", self.name).into()
    }
}

/// Regions of one address space.
#[derive(Debug)]
pub struct Memory {
    space: Space,
    pub regions: Vec<Region>,
    /// The region of the last access: most follow one another.
    last: usize,
}

fn aligned(
    space: Space,
    address: u64,
    bytes: usize,
    place: impl Fn() -> Box<str>,
) -> Result<(), Why> {
    if address.is_multiple_of(bytes as u64) {
        return Ok(());
    }
    let (space, place) = (space.name(), place());
    Err(Why::Misaligned {
        space,
        address,
        bytes,
        place,
    })
}

impl Memory {
    pub fn new(space: Space) -> Memory {
        Memory {
            space,
            regions: Vec::new(),
            last: 0,
        }
    }

    /// The shared memory of a program: its arrays, and `dynamic` bytes.
    pub fn shared(program: &Program, dynamic: usize) -> Memory {
        let mut memory = Memory::new(Space::Shared);
        let arrays = program
            .shared
            .iter()
            .map(|(n, at, len)| (n.as_str(), *at, *len));
        let all = arrays.chain([("dynamic shared memory", program.dynamic, dynamic)]);
        for (name, at, len) in all.filter(|a| a.2 > 0) {
            let mut region = Region::new(name, at as u64, vec![0xff; len], Access::Write);
            region.early = true;
            region.shadow = Some(Shadow::new(Fresh::Block, len));
            memory.regions.push(region);
        }
        memory
    }

    /// The region and offset of an access.
    fn find(&mut self, address: u64, bytes: usize) -> Result<(usize, usize), Why> {
        let holds = |r: &Region| {
            let from = address.wrapping_sub(r.base);
            from < r.bytes.len() as u64 && from + bytes as u64 <= r.bytes.len() as u64
        };
        if !self.regions.get(self.last).is_some_and(holds) {
            match self.regions.iter().position(holds) {
                Some(i) => self.last = i,
                None => return Err(self.outside(address, bytes)),
            }
        }
        Ok((self.last, (address - self.regions[self.last].base) as usize))
    }

    fn outside(&self, address: u64, bytes: usize) -> Why {
        let below = self
            .regions
            .iter()
            .filter(|r| r.base <= address)
            .max_by_key(|r| r.base);
        let nearest = below
            .or(self.regions.first())
            .map_or(Box::from("everything"), |r| {
                let from = address as i128 - i128::from(r.base);
                format!("{} ({} bytes; this is at {from:+})", r.name, r.bytes.len()).into()
            });
        Why::Bounds {
            space: self.space.name(),
            address,
            bytes,
            nearest,
        }
    }

    /// Bytes to read, at a multiple of as many.
    pub fn read(&mut self, who: &Who, address: u64, bytes: usize) -> Result<&[u8], Why> {
        self.read_at(who, address, bytes, bytes)
    }

    /// Bytes to read, at a multiple of `align`.
    pub fn read_at(
        &mut self,
        who: &Who,
        address: u64,
        bytes: usize,
        align: usize,
    ) -> Result<&[u8], Why> {
        let (region, at) = self.find(address, bytes)?;
        let r = &mut self.regions[region];
        r.there(who, at)?;
        aligned(self.space, address, align, || r.place(at))?;
        if let Some(shadow) = &mut r.shadow {
            let name = &r.name;
            shadow.read(who, at, bytes, &|i| format!("{name}+{i}").into())?;
        }
        Ok(&r.bytes[at..at + bytes])
    }

    /// Fails if the launch wrote any of these bytes before.
    pub fn constant(&mut self, who: &Who, address: u64, bytes: usize) -> Result<(), Why> {
        let (region, at) = self.find(address, bytes)?;
        let r = &self.regions[region];
        let written = |s: &Shadow| (at..at + bytes).find(|i| s.writer(*i).0 >= who.launch);
        match r.shadow.as_ref().and_then(written) {
            None => Ok(()),
            Some(i) => Err(Why::Wrong(format!(
                "{} is written in a launch that reads it through .nc",
                r.place(i)
            ))),
        }
    }

    /// Writes bytes.
    pub fn write(&mut self, who: &Who, address: u64, data: &[u8]) -> Result<(), Why> {
        let (region, at) = self.find(address, data.len())?;
        let r = &mut self.regions[region];
        r.there(who, at)?;
        aligned(self.space, address, data.len(), || r.place(at))?;
        if r.access == Access::Read {
            return Err(Why::ReadOnly { place: r.place(at) });
        }
        if let Some(shadow) = &mut r.shadow {
            let (name, old) = (&r.name, &r.bytes[at..]);
            let changed = |i: usize| old[i] != data[i];
            shadow.write(who, at, data.len(), &changed, &|i| {
                format!("{name}+{i}").into()
            })?;
        }
        r.bytes[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }

    /// Replaces up to 8 bytes by a function of them; returns the old value.
    pub fn update(
        &mut self,
        who: &Who,
        address: u64,
        bytes: usize,
        f: impl Fn(u64) -> u64,
    ) -> Result<u64, Why> {
        let (region, at) = self.find(address, bytes)?;
        let r = &mut self.regions[region];
        r.there(who, at)?;
        aligned(self.space, address, bytes, || r.place(at))?;
        if r.access == Access::Read {
            return Err(Why::ReadOnly { place: r.place(at) });
        }
        if let Some(shadow) = &mut r.shadow {
            let name = &r.name;
            shadow.atomic(who, at, bytes, &|i| format!("{name}+{i}").into())?;
        }
        let old = value(&r.bytes[at..at + bytes]);
        r.bytes[at..at + bytes].copy_from_slice(&f(old).to_le_bytes()[..bytes]);
        Ok(old)
    }

    /// Marks what was just written as still under way.
    pub fn begin(&mut self, address: u64, bytes: usize) -> Result<(), Why> {
        let (region, at) = self.find(address, bytes)?;
        if let Some(shadow) = &mut self.regions[region].shadow {
            shadow.begin(at, bytes);
        }
        Ok(())
    }

    /// An asynchronous product reads bytes until they are released.
    pub fn hold(&mut self, who: &Who, address: u64, bytes: usize) -> Result<(), Why> {
        let (region, at) = self.find(address, bytes)?;
        if let Some(shadow) = &mut self.regions[region].shadow {
            shadow.hold(who, at, bytes);
        }
        Ok(())
    }

    /// The product that read bytes is done.
    pub fn release(&mut self, who: &Who, address: u64, bytes: usize) -> Result<(), Why> {
        let (region, at) = self.find(address, bytes)?;
        if let Some(shadow) = &mut self.regions[region].shadow {
            shadow.release(who, at, bytes);
        }
        Ok(())
    }

    /// Fails if a byte was written and not handed over since, which `fence` says of a warp and
    /// the clock of its write.
    pub fn handed_over(
        &mut self,
        who: &Who,
        address: u64,
        bytes: usize,
        fence: &dyn Fn(usize, u32) -> bool,
    ) -> Result<(), Why> {
        let (region, at) = self.find(address, bytes)?;
        let r = &self.regions[region];
        let Some(shadow) = &r.shadow else {
            return Ok(());
        };
        let open = |i: &usize| {
            let (clock, thread) = shadow.writer(*i);
            clock >= who.block && !shadow.by_engine(*i) && !fence(thread as usize / 32, clock)
        };
        match (at..at + bytes).find(open) {
            None => Ok(()),
            Some(i) => {
                let place = r.place(i);
                Err(Why::Wrong(format!(
                    "no fence.proxy.async between the write of {place} and the hardware's own agent"
                )))
            }
        }
    }

    /// What the copy engine wrote has arrived; a wait orders it.
    pub fn land(&mut self, address: u64, bytes: usize) -> Result<(), Why> {
        let (region, at) = self.find(address, bytes)?;
        if let Some(shadow) = &mut self.regions[region].shadow {
            shadow.land(at, bytes);
        }
        Ok(())
    }

    /// What was under way has arrived, for a thread.
    pub fn finish(&mut self, who: &Who, address: u64, bytes: usize) -> Result<(), Why> {
        let (region, at) = self.find(address, bytes)?;
        if let Some(shadow) = &mut self.regions[region].shadow {
            shadow.finish(who, at, bytes);
        }
        Ok(())
    }
}

/// The little-endian value of up to 8 bytes.
pub fn value(bytes: &[u8]) -> u64 {
    let mut all = [0; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(all)
}

/// The parameters of a launch: reads stay inside of one.
#[derive(Debug)]
pub struct Params {
    pub bytes: Vec<u8>,
    /// Name, offset, bytes.
    pub fields: Vec<(String, usize, usize)>,
}

impl Params {
    /// Where parameters lie in their address space.
    pub const BASE: usize = 0x1000;

    pub fn read(&self, address: u64, bytes: usize) -> Result<&[u8], Why> {
        let at = address.wrapping_sub(Params::BASE as u64) as usize;
        let inside =
            |f: &&(String, usize, usize)| at >= f.1 && at.saturating_add(bytes) <= f.1 + f.2;
        let Some((name, start, _)) = self.fields.iter().find(inside) else {
            let nearest = "every parameter".into();
            return Err(Why::Bounds {
                space: "param",
                address,
                bytes,
                nearest,
            });
        };
        aligned(Space::Param, address, bytes, || {
            format!("{name}+{}", at - start).into()
        })?;
        Ok(&self.bytes[at..at + bytes])
    }
}
