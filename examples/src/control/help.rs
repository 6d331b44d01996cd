//! What `--help` says of commands, events and restarts.

/// Behind the options.
pub(super) const COMMANDS_AND_EVENTS: &str = r#"Commands, one JSON object a line on stdin, {"id":N,"cmd":"...",...}; each is answered by
{"id":N,"ok":true,"result":{...}} or {"id":N,"ok":false,"error":"...","code":"..."} when it is done:
  connect            peer, addr
  fundchannel        peer, funding_satoshis, push_msat, feerate_per_kw, announce, channel_type
  funding_tx         temporary_channel_id, tx: the signed transaction; it is kept until `broadcast`
  cancel             temporary_channel_id
  connect_block      height (one above the tip), txs (without the coinbase)
  disconnect_block   height (the tip)
  past_block         height (the tip or below), txs: a block from before this run
  synced             every block that matters has been shown since the start
  channels           every opening and opened channel
  status             height, what is under way, the last failure with each peer
  allow, disallow    peer: the allow-list
  shutdown           channel_id, script (not needed where the opening has fixed it)
  abandon            channel_id: the funding is double-spent, 6 blocks deep, in blocks shown here
  release            channel_id: forget one that is in use, or has failed and is resolved
  signed_commitment  channel_id: our commitment of a channel that failed with exit `broadcast`
  stop               as the end of stdin

Events, one JSON object a line on stdout:
  ready, peer_connected, peer_disconnected, funding_needed, broadcast, opened, channel_ready,
  failed, error_sent, error_received, warning_sent, warning_received
  restored           a channel that --store has kept, with its stage; after `ready`
  damaged            an entry of --store that cannot be read; the others serve
  ended              an opened channel failed or is given up: code, reason, and as exit what is left
                     to do: broadcast (`signed_commitment`), watch, await-peer or nothing
  save_overdue       the store has not answered for so many seconds whether a channel is saved
  still_unconfirmed  a funding transaction of ours has waited for so many blocks
  announceable       a public channel in use is 6 blocks deep

After a restart with --store: blocks and heights are not stored, so the driver shows them again.
Either start with --height below the oldest channel that is in stage `depth` or `channel-ready`, and
connect every block since.  Or start with --height at the tip, show each block that has a funding
transaction by past_block, and say `synced`.  Until then, or until 2016 blocks are connected, no
channel is forgotten for not having confirmed.  Each funding transaction of ours that was not seen in
a block is told by `broadcast` once more.  Channels go on when their peer is connected again.

Codes, limits, backup: docs/operations.md."#;
