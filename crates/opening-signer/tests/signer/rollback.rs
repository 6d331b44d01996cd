//! A store that lost records, and stores that did not.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use opening_core::{FeeratePerKw, Side};
use opening_signer::{ChannelRef, Enforcement, Hsm};

use crate::pair::{End, Pair, party, reason, signer};
use crate::restart::restarted;

async fn funder() -> End {
    Pair::new(Enforcement::Validating).await.funder
}

/// Another channel of the same signer and store.
async fn beside(end: &End, dbid: u64) -> End {
    let hsm = signer(7, Enforcement::Blind, &end.store);
    let reference = ChannelRef { dbid, ..end.reference };
    let channel = end.hsm.channel(reference).await.unwrap();
    let mut setup = end.setup.clone();
    setup.parameters.local = party(&*channel).await;
    End { store: end.store.clone(), hsm, reference, channel, setup }
}

/// Sets it up and signs.
async fn keep(end: &End) {
    end.channel.setup(&end.setup).await.unwrap();
    end.sign(&end.commitment(Side::Remote)).await.unwrap();
}

/// One with as many channels that were signed for.
async fn with_channels(count: u64) -> (End, Vec<End>) {
    let end = funder().await;
    let mut channels = vec![];
    for dbid in 1..=count {
        let channel = beside(&end, dbid).await;
        keep(&channel).await;
        channels.push(channel);
    }
    (end, channels)
}

fn copy(end: &End) -> HashMap<String, Vec<u8>> {
    end.store.entries.lock().unwrap().clone()
}

fn put_back(end: &End, copy: HashMap<String, Vec<u8>>) {
    *end.store.entries.lock().unwrap() = copy;
}

fn lose(end: &End, dbid: u64) {
    let ending = format!("_{dbid}");
    end.store.entries.lock().unwrap().retain(|name, _| !name.ends_with(&ending));
}

#[tokio::test]
async fn a_store_that_went_back_is_noticed_before_the_next_signature() {
    let (end, channels) = with_channels(2).await;
    let earlier = copy(&end);
    keep(&beside(&end, 3).await).await;
    assert_eq!(end.hsm.health(), Ok(()));
    put_back(&end, earlier);

    let next = beside(&end, 4).await;
    next.channel.setup(&next.setup).await.unwrap();
    assert_eq!(reason(next.sign(&next.commitment(Side::Remote)).await), "signer-storage");
    // From here on nothing is signed, and the node knows beforehand.
    assert_eq!(reason(end.hsm.health()), "signer-storage");
    let another = beside(&end, 5).await;
    assert_eq!(reason(another.channel.setup(&another.setup).await), "signer-storage");
    for channel in &channels {
        assert_eq!(reason(channel.sign(&channel.commitment(Side::Remote)).await), "signer-storage");
    }
    // Nor after a restart: the record that came after counted the one that is gone.
    let end = restarted(end).await;
    let another = beside(&end, 5).await;
    assert_eq!(reason(another.channel.setup(&another.setup).await), "signer-storage");
    assert_eq!(reason(end.hsm.health()), "signer-storage");
}

#[tokio::test]
async fn a_copy_that_has_every_record_is_no_loss() {
    let (end, _) = with_channels(3).await;
    let now = copy(&end);
    put_back(&end, now);
    keep(&beside(&end, 4).await).await;
    assert_eq!(end.hsm.health(), Ok(()));
}

#[tokio::test]
async fn a_channel_whose_record_is_gone_is_not_signed_for_again() {
    let (end, channels) = with_channels(2).await;
    lose(&end, 1);
    let first = &channels[0];
    assert_eq!(reason(first.sign(&first.commitment(Side::Remote)).await), "signer-storage");
    assert_eq!(reason(end.hsm.health()), "signer-storage");
}

#[tokio::test]
async fn a_forgotten_channel_is_not_begun_again_when_the_store_went_back() {
    for (count, at_setup) in [(1, true), (2, false)] {
        let end = funder().await;
        let before = copy(&end);
        for dbid in 1..=count {
            keep(&beside(&end, dbid).await).await;
        }
        let mut first = beside(&end, 1).await;
        end.hsm.forget_channel(first.reference).await.unwrap();
        put_back(&end, before);
        first.setup.parameters.feerate_per_kw = FeeratePerKw::new(1251);
        let answer = first.channel.setup(&first.setup).await;
        if at_setup {
            assert_eq!(reason(answer), "signer-storage");
        } else {
            answer.unwrap();
            let answer = first.sign(&first.commitment(Side::Remote)).await;
            assert_eq!(reason(answer), "signer-storage");
        }
        assert_eq!(reason(end.hsm.health()), "signer-storage");
    }
}

#[tokio::test]
async fn a_record_that_is_gone_is_noticed_after_a_start_if_a_later_one_is_there() {
    for dbid in 1..=2 {
        let (end, _) = with_channels(3).await;
        lose(&end, dbid);
        let end = restarted(end).await;
        let next = beside(&end, 4).await;
        assert_eq!(reason(next.channel.setup(&next.setup).await), "signer-storage", "{dbid}");
        assert_eq!(reason(end.hsm.health()), "signer-storage");
    }
    let (end, _) = with_channels(3).await;
    let end = restarted(end).await;
    keep(&beside(&end, 4).await).await;
}

#[tokio::test]
async fn records_are_counted_over_restarts() {
    let mut end = funder().await;
    for dbid in 1..=4 {
        end = restarted(end).await;
        keep(&beside(&end, dbid).await).await;
    }
    lose(&end, 2);
    let end = restarted(end).await;
    assert_eq!(reason(end.channel.setup(&end.setup).await), "signer-storage");
}

/// What the documentation says cannot be noticed.
#[tokio::test]
async fn an_older_copy_of_the_whole_store_is_not_noticed_after_a_start() {
    let (end, channels) = with_channels(2).await;
    let earlier = copy(&end);
    let third = beside(&end, 3).await;
    keep(&third).await;
    put_back(&end, earlier);

    let end = restarted(end).await;
    let mut other = beside(&end, 3).await;
    other.setup.parameters.feerate_per_kw = FeeratePerKw::new(1251);
    keep(&other).await;
    // What the copy has is still held.
    let mut other = beside(&end, channels[0].reference.dbid).await;
    other.setup.parameters.feerate_per_kw = FeeratePerKw::new(1251);
    assert_eq!(reason(other.channel.setup(&other.setup).await), "setup-differs");
}

/// Whatever happens to calls, no record is counted that is not there.
#[tokio::test]
async fn nothing_is_missed_that_was_never_kept() {
    let (end, channels) = with_channels(2).await;
    let theirs = channels[0].commitment(Side::Remote);
    // Signed again; forgotten, set up and signed again; twice at once.
    keep(&channels[0]).await;
    end.hsm.forget_channel(channels[0].reference).await.unwrap();
    keep(&channels[0]).await;
    let third = beside(&end, 3).await;
    third.channel.setup(&third.setup).await.unwrap();
    let commitment = third.commitment(Side::Remote);
    end.store.stalls.store(true, Ordering::SeqCst);
    let (one, two, ()) = tokio::join!(third.sign(&commitment), third.sign(&commitment), async {
        tokio::task::yield_now().await;
        end.store.stalls.store(false, Ordering::SeqCst);
    });
    assert_eq!(one.unwrap(), two.unwrap());
    // A write that failed, and one that was given up.
    let fourth = beside(&end, 4).await;
    fourth.channel.setup(&fourth.setup).await.unwrap();
    let commitment = fourth.commitment(Side::Remote);
    end.store.fails.store(true, Ordering::SeqCst);
    assert_eq!(reason(fourth.sign(&commitment).await), "signer-storage");
    end.store.fails.store(false, Ordering::SeqCst);
    end.store.stalls.store(true, Ordering::SeqCst);
    tokio::select! {
        biased;
        _ = fourth.sign(&commitment) => panic!("a signature left before its record was kept"),
        () = tokio::task::yield_now() => {}
    }
    end.store.stalls.store(false, Ordering::SeqCst);
    keep(&beside(&end, 5).await).await;
    assert_eq!(copy(&end).len(), 4);

    let end = restarted(end).await;
    let again = beside(&end, 1).await;
    keep(&again).await;
    again.sign(&theirs).await.unwrap();
    let end = restarted(end).await;
    keep(&beside(&end, 6).await).await;
    assert_eq!(end.hsm.health(), Ok(()));
}

#[tokio::test]
async fn a_store_that_cannot_be_read_is_no_loss() {
    let (end, channels) = with_channels(1).await;
    let first = &channels[0];
    let next = beside(&end, 2).await;
    end.store.reads_fail.store(true, Ordering::SeqCst);
    assert_eq!(reason(next.channel.setup(&next.setup).await), "signer-storage");
    assert_eq!(reason(first.sign(&first.commitment(Side::Remote)).await), "signer-storage");
    end.store.reads_fail.store(false, Ordering::SeqCst);
    assert_eq!(end.hsm.health(), Ok(()));
    keep(&next).await;
    keep(first).await;
}

#[tokio::test]
async fn a_channel_that_is_forgotten_while_it_is_signed_for_is_signed_for_once() {
    let end = funder().await;
    end.channel.setup(&end.setup).await.unwrap();
    let theirs = end.commitment(Side::Remote);
    let mut other = beside(&end, 1).await;
    other.setup.parameters.feerate_per_kw = FeeratePerKw::new(1251);
    let others = other.commitment(Side::Remote);

    end.store.stalls.store(true, Ordering::SeqCst);
    let (early, late, ()) = tokio::join!(
        end.sign(&theirs),
        async {
            end.hsm.forget_channel(end.reference).await.unwrap();
            other.channel.setup(&other.setup).await.unwrap();
            other.sign(&others).await
        },
        async {
            tokio::task::yield_now().await;
            end.store.stalls.store(false, Ordering::SeqCst);
        }
    );
    assert_eq!(reason(early), "setup-differs");
    late.unwrap();

    let end = restarted(end).await;
    assert_eq!(reason(end.channel.setup(&end.setup).await), "setup-differs");
    let other = End { channel: end.channel.clone(), ..other };
    keep(&other).await;
    assert_eq!(end.hsm.health(), Ok(()));
}

#[tokio::test]
async fn entries_of_others_are_not_counted() {
    let (end, _) = with_channels(2).await;
    let stray = "opening_signer/channels/readme".to_owned();
    end.store.entries.lock().unwrap().insert(stray, vec![1]);
    let end = restarted(end).await;
    keep(&beside(&end, 3).await).await;
    lose(&end, 1);
    let end = restarted(end).await;
    assert_eq!(reason(end.channel.setup(&end.setup).await), "signer-storage");
}
