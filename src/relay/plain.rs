//! Plain to plain: by copy while messages are small, through a pipe once the flow is bulky.

use std::io;

use super::flow::{Failure, Flow, MOVES_MAX};
use super::user::Receiving;
use crate::net::{Parts, Pipe};
use crate::observe::RelayPath;

/// A splice that moves less than this is dearer than a copy would be (engine measurements:
/// docs/benchmarks.md).
const SPLICE_BYTES_WORTH: usize = 16 * 1024;

impl Flow<'_> {
    pub(super) async fn run_plain(&mut self) -> Result<(), Failure> {
        let mut receiving = Receiving::new(self.direction);
        loop {
            self.seen.on_path(self.direction, RelayPath::Copy);
            let Some((buffer, bytes)) = self.receive_contiguous(&mut receiving).await? else {
                return Ok(());
            };
            self.send(&buffer, Parts::one(0..bytes)).await?;
            self.seen.on_sent(self.direction, bytes);
            drop(buffer);
            if receiving.overflowed_large()
                && let Ok(pipe) = self.tools.pipes.take()
                && self.splice(pipe).await? == SpliceEnd::EndOfStream
            {
                return Ok(());
            }
        }
    }

    /// Moves bytes through the pipe until the stream ends or runs thin.
    async fn splice(&mut self, mut pipe: Pipe) -> Result<SpliceEnd, Failure> {
        self.seen.on_path(self.direction, RelayPath::Splice);
        let mut moves = 0;
        loop {
            match pipe.fill_from(self.source.socket.fd(), pipe.bytes_wanted()) {
                Ok(0) => return Ok(SpliceEnd::EndOfStream),
                Ok(moved) => {
                    self.drain(&mut pipe).await?;
                    self.seen.on_sent(self.direction, moved);
                    moves += 1;
                    if moved < SPLICE_BYTES_WORTH {
                        return Ok(SpliceEnd::RanThin);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => moves = MOVES_MAX,
                Err(error) => return Err(self.source_failed(&error)),
            }
            if moves >= MOVES_MAX {
                // Through the ring even when bytes are there, so that others have their turn.
                moves = 0;
                let ready = self.source.socket.readable().await;
                ready.map_err(|error| self.source_failed(&error))?;
            }
        }
    }

    async fn drain(&mut self, pipe: &mut Pipe) -> Result<(), Failure> {
        while pipe.held() > 0 {
            match pipe.drain_to(self.sink.socket.fd()) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.sink_writable().await?;
                }
                Err(error) => return Err(self.sink_failed(&error)),
            }
        }
        Ok(())
    }
}

#[derive(PartialEq, Eq)]
enum SpliceEnd {
    EndOfStream,
    RanThin,
}
