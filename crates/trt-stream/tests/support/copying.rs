//! Passes whose kernel copies the rows that it is given, so that what a pass computes is the bytes
//! that it handed out.

use trt_device::{Device, Slice, Stream, Work};
use trt_stream::{Error, Pass, Use};

/// What went wrong in a pass of these tests.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Stream(#[from] Error),
    #[error("asked to stop")]
    Asked,
}

/// Where rows are copied to.
pub struct Copier<'a> {
    pub device: &'a dyn Device,
    pub compute: Stream,
    pub out: Slice,
}

impl Copier<'_> {
    /// Copies every row that the pass launches, one use after another. `shape` tells the rows of a
    /// use and the bytes of each. Returns the bytes that were copied.
    pub fn uses(
        &self,
        pass: &mut Pass<'_>,
        shape: impl Fn(Use) -> (usize, usize),
        stop_at: Option<usize>,
    ) -> Result<usize, Failure> {
        let (mut at, mut launches) = (0, 0);
        while let Some(next) = pass.upcoming() {
            let (rows, row) = shape(next);
            let mut next_row = 0;
            pass.next_use(|tiles| {
                if Some(launches) == stop_at {
                    return Err(Failure::Asked);
                }
                launches += 1;
                assert_eq!(tiles.rows.start, next_row, "rows come in order");
                for (rows, src) in tiles.each() {
                    assert_eq!(src.len(), rows.len() * row);
                    next_row = rows.end;
                    let dst = at + rows.start * row..at + rows.end * row;
                    let (dst, src) = (self.out.slice(dst).unwrap(), src.clone());
                    let copy = Work::Copy { dst, src };
                    self.device.submit(self.compute, copy).unwrap();
                }
                Ok(())
            })?;
            assert_eq!(next_row, rows, "every row was launched");
            at += rows * row;
        }
        Ok(at)
    }

    /// What was copied must be this.
    pub fn check(&self, expected: &[u8]) {
        let out = self.out.slice(0..expected.len()).unwrap();
        let mut found = vec![0; expected.len()];
        self.device.read(self.compute, &out, &mut found).unwrap();
        assert!(found == expected, "a pass computed other bits");
        // What an earlier pass left must not pass for this one's result.
        let bytes = vec![0xAA; found.len()];
        let blank = Work::Write { dst: out, bytes };
        self.device.submit(self.compute, blank).unwrap();
    }
}
