//! The signer in a process of its own: the program `hsmd`, which the demo kills and starts again.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use opening_core::Limits;
use opening_peer::store::MemoryStore;
use opening_signer::remote::unix::UnixDialer;
use opening_signer::remote::{EnvelopeOptions, EnvelopedHsm};
use opening_signer::{Hsm, HsmSecret};
use tempfile::TempDir;

use crate::chain::RegtestChain;
use crate::our_node::{AnyError, OurNode};
use crate::secret_file;

/// Nothing here takes longer, unless it never comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where our node's signer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// In this process.
    Here,
    /// In one of its own.
    InAProcess,
}

/// A running `hsmd`, validating, on a Unix socket; it is killed when this is dropped.
pub struct SignerProcess {
    directory: TempDir,
    program: PathBuf,
    child: Child,
    hsm: Option<Arc<dyn Hsm>>,
}

impl Drop for SignerProcess {
    fn drop(&mut self) {
        // Gone already, if it was killed before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl SignerProcess {
    /// Starts the program beside this one.
    pub fn start() -> Result<Self, AnyError> {
        let program = std::env::current_exe()?.with_file_name("hsmd");
        let directory = tempfile::tempdir()?;
        let child = spawn(&program, &directory)?;
        Ok(Self { directory, program, child, hsm: None })
    }

    /// What it is.
    pub fn describe(&self) -> String {
        format!("hsmd, validating, pid {}", self.child.id())
    }

    /// A node that uses it.  Its identity comes from the same file.
    pub async fn node(&mut self, chain: RegtestChain) -> Result<Arc<OurNode>, AnyError> {
        let path = self.directory.path();
        let dialer = UnixDialer::new(path.join("run/signer"));
        let hsm = EnvelopedHsm::connect(dialer, EnvelopeOptions::new(ChainHash::REGTEST)).await?;
        let hsm: Arc<dyn Hsm> = Arc::new(hsm);
        self.hsm = Some(hsm.clone());
        // It is there: the signer has created it before it listened.
        let secret = HsmSecret::new(secret_file::read_or_create(&path.join("secret"))?);
        let limits = Limits::for_network(Network::Regtest);
        let store = Arc::new(MemoryStore::default());
        OurNode::with_signer(secret.node_key(), hsm, chain, limits, store).await
    }

    /// Kills it, and waits until the node knows.
    pub async fn kill(&mut self) -> Result<(), AnyError> {
        self.child.kill()?;
        self.child.wait()?;
        let hsm = self.hsm.clone();
        let noticed = async {
            while hsm.as_ref().is_some_and(|hsm| hsm.health().is_ok()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        Ok(tokio::time::timeout(PATIENCE, noticed).await?)
    }

    /// Starts it again on the same files.
    pub fn restart(&mut self) -> Result<(), AnyError> {
        self.child = spawn(&self.program, &self.directory)?;
        Ok(())
    }
}

fn spawn(program: &Path, directory: &TempDir) -> Result<Child, AnyError> {
    let path = directory.path();
    let child = Command::new(program)
        .args(["--log", "off", "--secret-file"])
        .arg(path.join("secret"))
        .arg("--validating")
        .arg(path.join("store"))
        .arg("--unix")
        .arg(path.join("run/signer"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    child.map_err(|error| {
        let hint = "cargo xtask demo --remote-signer builds it";
        format!("cannot start {}: {error} ({hint})", program.display()).into()
    })
}
