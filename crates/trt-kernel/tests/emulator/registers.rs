//! Registers of a warp: 32 values each, which lanes have written them, and what asynchronous
//! products make of them.

use super::error::Why;
use super::inst::{Program, Slot};
use super::warp::{Lanes, Stop, lanes};

/// How asynchronous products that are under way use a register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Use {
    #[default]
    None,
    /// It may be read.
    Source,
    /// It may not be touched.
    Sum,
}

/// The registers of a warp.
#[derive(Debug)]
pub struct Registers {
    values: Vec<Lanes>,
    written: Vec<u32>,
    uses: Vec<Use>,
    /// Whether each was written since registers were last handed to products.
    touched: Vec<bool>,
    /// A register that was written while a product used it.
    clash: Option<Slot>,
}

impl Registers {
    pub fn new(n: usize) -> Registers {
        Registers {
            values: vec![[0; 32]; n],
            written: vec![0; n],
            uses: vec![Use::None; n],
            touched: vec![false; n],
            clash: None,
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.written.fill(0);
        self.touched.fill(false);
        self.clash = None;
        self.release();
    }

    fn written(&self, program: &Program, slot: Slot, mask: u32) -> Result<(), Stop> {
        let missing = mask & !self.written[slot as usize];
        if missing == 0 {
            return Ok(());
        }
        let register = program.registers[slot as usize].clone();
        Err(Stop::at(missing.trailing_zeros())(Why::Register {
            register,
        }))
    }

    fn under_way(program: &Program, slot: Slot) -> Stop {
        let place = program.registers[slot as usize].as_str().into();
        Why::Pending { place, by: 0 }.into()
    }

    /// A register, for lanes that have written it.
    pub fn get(&self, program: &Program, slot: Slot, mask: u32) -> Result<&Lanes, Stop> {
        self.written(program, slot, mask)?;
        if self.uses[slot as usize] == Use::Sum {
            return Err(Registers::under_way(program, slot));
        }
        Ok(&self.values[slot as usize])
    }

    pub fn set(&mut self, slot: Slot, mask: u32, values: &Lanes) {
        let to = &mut self.values[slot as usize];
        if mask == u32::MAX {
            *to = *values;
        } else {
            lanes(mask).for_each(|l| to[l as usize] = values[l as usize]);
        }
        self.wrote(slot, mask);
    }

    pub fn set_lane(&mut self, slot: Slot, lane: u32, value: u64) {
        self.values[slot as usize][lane as usize] = value;
        self.wrote(slot, 1 << lane);
    }

    fn wrote(&mut self, slot: Slot, mask: u32) {
        self.written[slot as usize] |= mask;
        self.touched[slot as usize] = true;
        if self.uses[slot as usize] != Use::None {
            self.clash = Some(slot);
        }
    }

    /// Fails if a register was written while a product used it.
    pub fn check(&self, program: &Program) -> Result<(), Stop> {
        match self.clash {
            None => Ok(()),
            Some(slot) => Err(Registers::under_way(program, slot)),
        }
    }

    /// A sum, which products under way may also add to.
    pub fn sum(&self, program: &Program, slot: Slot) -> Result<&Lanes, Stop> {
        self.written(program, slot, u32::MAX)?;
        Ok(&self.values[slot as usize])
    }

    /// A product's result.
    pub fn set_sum(&mut self, slot: Slot, values: &Lanes) {
        self.values[slot as usize] = *values;
        self.written[slot as usize] = u32::MAX;
    }

    /// All that threads wrote is handed to products.
    pub fn hand_over(&mut self) {
        self.touched.fill(false);
    }

    /// Fails if a register was written and not handed over since.
    pub fn handed_over(&self, program: &Program, slots: &[Slot]) -> Result<(), Stop> {
        match slots.iter().find(|s| self.touched[**s as usize]) {
            None => Ok(()),
            Some(slot) => {
                let name = &program.registers[*slot as usize];
                let what = format!("no wgmma.fence between the write of {name} and wgmma");
                Err(Why::Wrong(what).into())
            }
        }
    }

    /// Products under way use these.
    pub fn hold(&mut self, sums: &[Slot], sources: &[Slot]) {
        sources
            .iter()
            .for_each(|s| self.uses[*s as usize] = Use::Source);
        sums.iter().for_each(|s| self.uses[*s as usize] = Use::Sum);
    }

    /// No product is under way.
    pub fn release(&mut self) {
        self.uses.fill(Use::None);
    }
}
