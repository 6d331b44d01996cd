//! A signer that goes wrong on purpose.

mod channel;
mod forgery;
mod misdeed;
mod transcript;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use self::channel::MockChannel;
pub use self::misdeed::{Forgery, Misdeed, Restart};
use self::transcript::Written;
pub use self::transcript::{Entry, Outcome, Transcript};
use super::{EVERY, Faults};
use crate::call::Call;
use crate::error::{HsmError, HsmResult};
use crate::hsm::{ChannelHsm, Hsm};
use crate::info::Info;
use crate::request::ChannelRef;

/// Another signer, whose calls go wrong, and are written down.
///
/// [`Faults`] plans whether and when a call is carried out and answered; a [`Misdeed`] is what
/// only a signer can do: a refusal, a restart, an answer that is not one.  Both count the calls of
/// all channels together, from 1, by call.  One plan of faults may serve a node's other parts, too.
///
/// A call that fails before it is carried out says [`HsmError::Unavailable`], one that fails after
/// it says [`HsmError::Indeterminate`], unless [`failing_with`](Self::failing_with) chooses.
///
/// ```
/// use std::sync::Arc;
///
/// use opening_signer::testing::{EVERY, Fault, Faults, Forgery, Misdeed, MockHsm, Restart};
/// use opening_signer::{Call, HsmError, HsmSecret, LocalHsm};
///
/// let start = || Arc::new(LocalHsm::blind(&HsmSecret::new([7; 32])));
/// // It carries out the first `setup`, and its answer is lost; the owner has to press a button.
/// let faults = Faults::none()
///     .at("setup", 1, Fault::FailAfter)
///     .at("sign_counterparty_commitment", EVERY, Fault::Hold);
/// let mock = MockHsm::new(start(), faults.clone())
///     .restarting(move |_| start())
///     .defers(Call::Pubkeys, 2)
///     .does(Call::Setup, 2, Misdeed::Restart(Restart::Remembering))
///     .does(Call::SignCounterpartyCommitment, 1, Misdeed::Forge(Forgery::HighS))
///     .refuses(Call::ValidateHolderCommitment, EVERY, "policy-of-the-test");
/// let transcript = mock.transcript();
/// // The node gets `Arc::new(mock)`.  Later, the button:
/// faults.release();
/// assert_eq!(transcript.count(Call::Setup), 0);
/// ```
pub struct MockHsm(Arc<State>);

struct State {
    faults: Faults,
    failure: Option<HsmError>,
    misdeeds: HashMap<(Call, u32), Misdeed>,
    start: Option<Box<Start>>,
    life: Mutex<Life>,
    transcript: Transcript,
}

type Start = dyn Fn(Restart) -> Arc<dyn Hsm> + Send + Sync;

/// The signer between two restarts.
#[derive(Clone)]
struct Life {
    number: u32,
    hsm: Arc<dyn Hsm>,
}

impl MockHsm {
    /// `inner`, with these faults.
    pub fn new(inner: Arc<dyn Hsm>, faults: Faults) -> Self {
        Self(Arc::new(State {
            faults,
            failure: None,
            misdeeds: HashMap::new(),
            start: None,
            life: Mutex::new(Life { number: 1, hsm: inner }),
            transcript: Transcript::default(),
        }))
    }

    /// The same; calls that the faults make fail say this.
    pub fn failing_with(self, failure: HsmError) -> Self {
        self.change(|state| state.failure = Some(failure))
    }

    /// The same; a restart is `start`.
    ///
    /// A forgery needs it, too: what another channel would answer, or what the signer would sign if
    /// it were asked for something else, is asked of one that is started for it, without memory.
    pub fn restarting<H: Hsm>(
        self,
        start: impl Fn(Restart) -> Arc<H> + Send + Sync + 'static,
    ) -> Self {
        self.change(|state| state.start = Some(Box::new(move |restart| start(restart))))
    }

    /// The same, with a misdeed at the `nth` call, or at [`EVERY`] one.
    ///
    /// # Panics
    ///
    /// If it is none of this call, or needs [`restarting`](Self::restarting) first.
    pub fn does(self, call: Call, nth: u32, misdeed: Misdeed) -> Self {
        assert!(misdeed.is_of(call), "{misdeed:?} is none of {call}");
        let can_start = self.0.start.is_some();
        assert!(can_start || !misdeed.needs_start(), "{misdeed:?} needs `restarting`");
        self.change(|state| {
            state.misdeeds.insert((call, nth), misdeed);
        })
    }

    /// The same; it refuses the `nth` call, or [`EVERY`] one, with this tag.
    pub fn refuses(self, call: Call, nth: u32, tag: &str) -> Self {
        let refused = HsmError::Refused { tag: tag.into(), detail: "on purpose".into() };
        self.does(call, nth, Misdeed::Say(refused))
    }

    /// The same; it defers the first `times` calls.
    pub fn defers(self, call: Call, times: u32) -> Self {
        let defer = |mock: Self, nth| mock.does(call, nth, Misdeed::Say(HsmError::Deferred));
        (1..=times).fold(self, defer)
    }

    /// What it was asked, shared.
    pub fn transcript(&self) -> Transcript {
        self.0.transcript.clone()
    }

    fn change(mut self, change: impl FnOnce(&mut State)) -> Self {
        change(Arc::get_mut(&mut self.0).expect("no channel holds a mock that is being planned"));
        self
    }
}

const ON_PURPOSE: &str = "on purpose";

impl State {
    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Life {
        self.life().clone()
    }

    /// A signer with the same secret.
    fn start(&self, restart: Restart) -> Arc<dyn Hsm> {
        let start = self.start.as_ref().expect("checked in does(): there is one");
        start(restart)
    }

    /// Writes down that the call was made, and what is to be done then.
    fn begin(
        &self,
        call: Call,
        reference: ChannelRef,
        request: String,
        transaction: Option<Vec<u8>>,
    ) -> Turn<'_> {
        let written = self.transcript.begin(call, reference, request, transaction);
        let at = |nth| self.misdeeds.get(&(call, nth)).cloned();
        let misdeed = at(written.nth).or_else(|| at(EVERY));
        Turn { state: self, call, misdeed, written }
    }
}

/// One call.
struct Turn<'a> {
    state: &'a State,
    call: Call,
    misdeed: Option<Misdeed>,
    written: Written,
}

impl Turn<'_> {
    /// What the answer is to be instead.
    fn forgery(&self) -> Option<Forgery> {
        match self.misdeed {
            Some(Misdeed::Forge(forgery)) => Some(forgery),
            _ => None,
        }
    }

    /// Does `act`, or what goes wrong instead.
    async fn perform<T>(self, act: impl Future<Output = HsmResult<T>>) -> HsmResult<T> {
        let is_done = AtomicBool::new(false);
        let act = async {
            match &self.misdeed {
                Some(Misdeed::Say(error)) => return Err(error.clone()),
                Some(Misdeed::Restart(restart)) => {
                    let hsm = self.state.start(*restart);
                    let mut life = self.state.life();
                    *life = Life { number: life.number + 1, hsm };
                }
                Some(Misdeed::Forge(_)) | None => {}
            }
            let done = act.await;
            if done.is_ok() {
                is_done.store(true, Ordering::Relaxed);
                self.state.transcript.carried_out(&self.written);
            }
            done
        };
        let failure = || match &self.state.failure {
            Some(failure) => failure.clone(),
            None if is_done.load(Ordering::Relaxed) => HsmError::Indeterminate(ON_PURPOSE.into()),
            None => HsmError::Unavailable(ON_PURPOSE.into()),
        };
        let result = self.state.faults.around(self.call.as_str(), act, failure).await;
        self.state.transcript.end(&self.written, result.as_ref().map(drop));
        result
    }
}

#[async_trait]
impl Hsm for MockHsm {
    fn info(&self) -> Info {
        self.0.now().hsm.info()
    }

    fn health(&self) -> HsmResult<()> {
        self.0.now().hsm.health()
    }

    async fn channel(&self, reference: ChannelRef) -> HsmResult<Arc<dyn ChannelHsm>> {
        let turn = self.0.begin(Call::Channel, reference, String::new(), None);
        let open = async { MockChannel::open(self.0.clone(), reference).await };
        let channel = turn.perform(open).await?;
        Ok(Arc::new(channel))
    }

    async fn forget_channel(&self, reference: ChannelRef) -> HsmResult<()> {
        let turn = self.0.begin(Call::ForgetChannel, reference, String::new(), None);
        turn.perform(async { self.0.now().hsm.forget_channel(reference).await }).await
    }
}
