//! Unix sockets between a node and its signer on the same machine.
//!
//! Who may connect is decided twice, so that one mistake does not give the signer away: by the file
//! system (a socket of mode 0600 in a directory of mode 0700), and by the kernel's word on who is
//! at the other end.  Both ends ask for that: a node would show its channels to a stranger's
//! socket, a signer would sign for one.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{UnixListener, UnixStream};

use super::{Connect, Stream};

/// Connects to the signer that listens at `path`, or to the node that waits for one there.
///
/// Fails where nobody listens, or where who listens runs neither as our user nor as root.
pub async fn connect(path: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path).await.map_err(|error| {
        explain(error, format_args!("cannot connect to {}, is a signer running?", path.display()))
    })?;
    check_peer(&stream, path)?;
    Ok(stream)
}

/// Dials the signer that listens at a path, each time anew.
#[derive(Clone, Debug)]
pub struct UnixDialer {
    path: PathBuf,
}

impl UnixDialer {
    /// For the signer at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

#[async_trait]
impl Connect for UnixDialer {
    async fn connect(&mut self) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(connect(&self.path).await?))
    }
}

/// A node that waits until its signer dials.
#[async_trait]
impl Connect for SignerSocket {
    async fn connect(&mut self) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.accept().await?))
    }
}

/// A Unix socket on which a signer waits for its node, or a node for its signer.
///
/// The socket file is removed when this is dropped.
#[derive(Debug)]
pub struct SignerSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode: a file that another process has put in our place stays.
    file: (u64, u64),
}

impl SignerSocket {
    /// Listens at `path`.
    ///
    /// Its directory is created with mode 0700 where it is missing, and must otherwise be ours and
    /// have that mode.  What a dead process left at `path` is replaced, the socket of a living one
    /// is not.  Must be called within a tokio runtime.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        private_directory(directory)?;
        // Of two that start at once the second waits, and then finds the first alive.
        let lock = File::open(directory).map_err(|error| {
            explain(error, format_args!("cannot open the directory {}", directory.display()))
        })?;
        lock.lock()?;
        remove_stale(path)?;
        let listener = UnixListener::bind(path)
            .map_err(|error| explain(error, format_args!("cannot listen at {}", path.display())))?;
        // Until here only the directory's mode keeps others out.
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        let file = identity(path)?;
        Ok(Self { listener, path: path.into(), file })
    }

    /// The next connection of a process that runs as our user or as root; others are closed, and
    /// logged.  May be dropped while it is awaited.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            match check_peer(&stream, &self.path) {
                Ok(()) => return Ok(stream),
                Err(error) => log::warn!("closed a connection: {error}"),
            }
        }
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SignerSocket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|file| file == self.file)
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::warn!("cannot remove the socket {}: {error}", self.path.display());
        }
    }
}

/// Device and inode of the file itself, not of what it may point to.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Ours alone, created where it is missing.
fn private_directory(directory: &Path) -> io::Result<()> {
    let shown = directory.display();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| explain(error, format_args!("cannot create the directory {shown}")))?;
    // A link is as safe as every directory on its way: nobody wants to check them.
    let metadata = fs::symlink_metadata(directory)?;
    if !metadata.is_dir() {
        return Err(refuse(format!("{shown} is not a directory: name the real one")));
    }
    let (owner, us) = (metadata.uid(), own_uid());
    if owner != us {
        return Err(refuse(format!(
            "the directory {shown} belongs to user {owner} and we run as {us}: use one of our own"
        )));
    }
    let mode = metadata.mode() & 0o777;
    if mode != 0o700 {
        return Err(refuse(format!(
            "the directory {shown} has mode {mode:04o}: run `chmod 700`, or name another one"
        )));
    }
    Ok(())
}

/// Removes a socket that nobody listens on any more.
fn remove_stale(path: &Path) -> io::Result<()> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(explain(error, format_args!("cannot look at {shown}"))),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            let reason = format!("{shown} exists and is no socket: move it, or name another path");
            return Err(io::Error::new(ErrorKind::AlreadyExists, reason));
        }
        Ok(_) => {}
    }
    if is_listened_to(path)? {
        let reason = format!("another process listens at {shown}: stop it, or name another path");
        return Err(io::Error::new(ErrorKind::AddrInUse, reason));
    }
    fs::remove_file(path)
        .map_err(|error| explain(error, format_args!("cannot remove the old socket {shown}")))
}

/// Does not wait for a process that is too busy to accept: that one lives.
fn is_listened_to(path: &Path) -> io::Result<bool> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&probe, &SocketAddrUnix::new(path)?) {
        Err(Errno::CONNREFUSED) => Ok(false),
        _ => Ok(true),
    }
}

fn check_peer(stream: &UnixStream, path: &Path) -> io::Result<()> {
    let (theirs, ours) = (stream.peer_cred()?.uid(), own_uid());
    if is_trusted(theirs, ours) {
        return Ok(());
    }
    Err(refuse(format!(
        "the other end of {} runs as user {theirs} and we as {ours}: run both as one user",
        path.display()
    )))
}

/// The same user, who can read our memory anyway; root, who can read everyone's.  A group is no
/// reason: the members of one change without anybody asking the signer's owner.
fn is_trusted(theirs: u32, ours: u32) -> bool {
    theirs == ours || theirs == 0
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn refuse(reason: String) -> io::Error {
    io::Error::new(ErrorKind::PermissionDenied, reason)
}

fn explain(error: io::Error, doing: std::fmt::Arguments<'_>) -> io::Error {
    io::Error::new(error.kind(), format!("{doing}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_user_and_root_are_trusted_and_nobody_else() {
        assert!(is_trusted(1000, 1000));
        assert!(is_trusted(0, 1000));
        assert!(!is_trusted(1001, 1000));
        assert!(!is_trusted(1000, 0));
    }
}
