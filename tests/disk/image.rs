//! A disk with a cache that a power cut empties: a file that is served by this process, over which
//! a loop device is put. It keeps a log of all that is written, and of the flushes; from the log
//! comes what a cut may leave.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation,
    INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyWrite,
    Request, WriteFlags,
};

use crate::history::Random;

const FILE: INodeNo = INodeNo(2);
const FOREVER: Duration = Duration::from_secs(1 << 30);
const SECTOR: usize = 512;
const PAGE: usize = 4096;

/// A request to the disk.
#[derive(Debug)]
pub enum Event {
    /// Write these bytes at this offset: into the cache, in no particular order.
    Write(u64, Vec<u8>),
    /// Make everything written before durable.
    Flush,
}

/// The content of a disk, by page; a page that was never written is zero.
#[derive(Clone, Debug, Default)]
pub struct Pages(BTreeMap<u64, Box<[u8; PAGE]>>);

impl Pages {
    fn write(&mut self, mut offset: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (number, start) = (
                offset / PAGE as u64,
                usize::try_from(offset % PAGE as u64).unwrap(),
            );
            let (now, rest) = bytes.split_at(bytes.len().min(PAGE - start));
            (offset, bytes) = (offset + now.len() as u64, rest);
            if !self.0.contains_key(&number) && now.iter().all(|byte| *byte == 0) {
                continue;
            }
            let page = self.0.entry(number).or_insert_with(|| Box::new([0; PAGE]));
            page[start..start + now.len()].copy_from_slice(now);
        }
    }

    fn read(&self, mut offset: u64, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let (number, start) = (
                offset / PAGE as u64,
                usize::try_from(offset % PAGE as u64).unwrap(),
            );
            let length = bytes.len().min(PAGE - start);
            let (now, rest) = bytes.split_at_mut(length);
            match self.0.get(&number) {
                Some(page) => now.copy_from_slice(&page[start..start + length]),
                None => now.fill(0),
            }
            offset += length as u64;
            bytes = rest;
        }
    }

    /// Makes a file of this size that holds them.
    pub fn save(&self, path: &Path, size: u64) -> io::Result<()> {
        let file = File::create(path)?;
        file.set_len(size)?;
        for (number, page) in self
            .0
            .iter()
            .filter(|(_, page)| page.iter().any(|byte| *byte != 0))
        {
            file.write_all_at(&page[..], number * PAGE as u64)?;
        }
        Ok(())
    }
}

/// How a cut treats data that was written but not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// All of it was on the disk already.
    Kept,
    /// All of it is lost.
    Lost,
    /// Each write or not, in any order.
    Any,
    /// Each part of each write or not, of the size that the disk writes at once.
    Torn,
}

/// Replays a log from its start, and builds for each moment what a cut then leaves.
pub struct Replay<'a> {
    log: &'a [Event],
    lasting: Pages,
    /// How much of the log is in `lasting`: all up to the last flush before the last moment that
    /// was asked for.
    flushed: usize,
}

impl<'a> Replay<'a> {
    pub fn new(log: &'a [Event]) -> Self {
        Self {
            log,
            lasting: Pages::default(),
            flushed: 0,
        }
    }

    /// What a cut leaves when so many events had happened, no fewer than at the last call; and how
    /// many writes were in the cache then. `unit`: how much the disk writes at once.
    pub fn cut(
        &mut self,
        events: usize,
        cache: Cache,
        unit: usize,
        random: &mut Random,
    ) -> (Pages, usize) {
        let last = self.log[..events]
            .iter()
            .rposition(|event| matches!(event, Event::Flush))
            .unwrap_or(0);
        for event in &self.log[self.flushed.min(last)..last] {
            if let Event::Write(offset, bytes) = event {
                self.lasting.write(*offset, bytes);
            }
        }
        self.flushed = self.flushed.max(last);
        let (mut pages, mut pending) = (self.lasting.clone(), 0);
        for event in &self.log[self.flushed..events] {
            let Event::Write(offset, bytes) = event else {
                continue;
            };
            pending += 1;
            match cache {
                Cache::Kept => pages.write(*offset, bytes),
                Cache::Any if random.once_in(2) => pages.write(*offset, bytes),
                Cache::Torn => {
                    for (index, part) in bytes.chunks(unit).enumerate() {
                        if random.once_in(2) {
                            pages.write(*offset + (index * unit) as u64, part);
                        }
                    }
                }
                Cache::Lost | Cache::Any => {}
            }
        }
        (pages, pending)
    }
}

/// The log of a disk that is in use.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<(Pages, Vec<Event>)>>);

impl Log {
    fn with<T>(&self, run: impl FnOnce(&mut (Pages, Vec<Event>)) -> T) -> T {
        run(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many events there were.
    pub fn len(&self) -> usize {
        self.with(|(_, log)| log.len())
    }

    /// The events, which are then forgotten.
    pub fn take(&self) -> Vec<Event> {
        self.with(|(_, log)| std::mem::take(log))
    }
}

/// Serves a disk of this size as the file `disk` in a directory, until what is returned is dropped.
pub fn serve(directory: &Path, size: u64, log: &Log) -> io::Result<BackgroundSession> {
    fuser::spawn_mount(
        Image {
            size,
            log: log.clone(),
        },
        directory,
        &Config::default(),
    )
}

struct Image {
    size: u64,
    log: Log,
}

impl Image {
    fn attributes(&self, number: INodeNo) -> FileAttr {
        let is_file = number == FILE;
        FileAttr {
            ino: number,
            size: if is_file { self.size } else { 0 },
            blocks: if is_file {
                self.size / SECTOR as u64
            } else {
                0
            },
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_file {
                FileType::RegularFile
            } else {
                FileType::Directory
            },
            perm: if is_file { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Image {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == "disk" {
            reply.entry(&FOREVER, &self.attributes(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &self.attributes(number));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let length = u64::from(size).min(self.size.saturating_sub(offset));
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        self.log.with(|(pages, _)| pages.read(offset, &mut bytes));
        reply.data(&bytes);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.log.with(|(pages, log)| {
            pages.write(offset, bytes);
            log.push(Event::Write(offset, bytes.to_vec()));
        });
        reply.written(u32::try_from(bytes.len()).unwrap());
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // close(2): no flush of the disk
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.log.with(|(_, log)| log.push(Event::Flush));
        reply.ok();
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        // no discard: written data stays as it is
        reply.error(Errno::EOPNOTSUPP);
    }
}
