//! Two nodes that know all their secrets, and the channel between them.

#![allow(dead_code)] // Each test file uses its part.

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey};
use bitcoin::{Amount, OutPoint, Transaction, TxOut, Txid};
use opening_core::{
    ChannelConfig, ChannelKeys, ChannelParameters, ChannelType, Commitment, FeeratePerKw,
    FundingOutput, MilliSatoshi, Party, Side,
};

pub(crate) const SIDES: [Side; 2] = [Side::Local, Side::Remote];

pub(crate) fn sat(satoshis: u64) -> Amount {
    Amount::from_sat(satoshis)
}

pub(crate) fn msat(millisatoshis: u64) -> MilliSatoshi {
    MilliSatoshi::from_msat(millisatoshis)
}

/// The secrets behind a [`Party`].
#[derive(Clone, Debug)]
pub(crate) struct Secrets {
    pub(crate) funding: SecretKey,
    pub(crate) revocation: SecretKey,
    pub(crate) payment: SecretKey,
    pub(crate) delayed_payment: SecretKey,
    pub(crate) htlc: SecretKey,
    pub(crate) first_per_commitment: SecretKey,
}

impl Secrets {
    pub(crate) fn from_seed(seed: [u8; 32]) -> Self {
        let secret = |number: u8| {
            let mut engine = sha256::Hash::engine();
            engine.input(&seed);
            engine.input(&[number]);
            let hash = sha256::Hash::from_engine(engine).to_byte_array();
            SecretKey::from_slice(&hash).expect("no test has found a hash beyond the curve order")
        };
        Self {
            funding: secret(0),
            revocation: secret(1),
            payment: secret(2),
            delayed_payment: secret(3),
            htlc: secret(4),
            first_per_commitment: secret(5),
        }
    }

    pub(crate) fn party(&self, secp: &Secp256k1<All>, config: ChannelConfig) -> Party {
        let point = |secret: &SecretKey| PublicKey::from_secret_key(secp, secret);
        let keys = ChannelKeys {
            funding_pubkey: point(&self.funding),
            revocation_basepoint: point(&self.revocation),
            payment_basepoint: point(&self.payment),
            delayed_payment_basepoint: point(&self.delayed_payment),
            htlc_basepoint: point(&self.htlc),
        };
        Party { config, keys, first_per_commitment_point: point(&self.first_per_commitment) }
    }
}

pub(crate) const CONFIG: ChannelConfig = ChannelConfig {
    dust_limit_satoshis: Amount::from_sat(354),
    max_htlc_value_in_flight_msat: MilliSatoshi::from_msat(1_000_000_000),
    channel_reserve_satoshis: Amount::from_sat(10_000),
    htlc_minimum_msat: MilliSatoshi::from_msat(1),
    to_self_delay: 144,
    max_accepted_htlcs: 483,
};

/// A channel, and the secrets of both of its sides.
#[derive(Clone, Debug)]
pub(crate) struct Channel {
    pub(crate) secp: Secp256k1<All>,
    pub(crate) local: Secrets,
    pub(crate) remote: Secrets,
    pub(crate) parameters: ChannelParameters,
}

impl Channel {
    /// 1,000,000 sat opened by us without a push, at 2500 sat per 1000 weight units.
    pub(crate) fn of(channel_type: ChannelType) -> Self {
        Self::between(Secrets::from_seed([1; 32]), Secrets::from_seed([2; 32]), channel_type)
    }

    pub(crate) fn between(local: Secrets, remote: Secrets, channel_type: ChannelType) -> Self {
        let secp = Secp256k1::new();
        let parameters = ChannelParameters {
            opener: Side::Local,
            funding_outpoint: OutPoint { txid: Txid::from_byte_array([7; 32]), vout: 1 },
            funding_satoshis: sat(1_000_000),
            push_msat: MilliSatoshi::ZERO,
            feerate_per_kw: FeeratePerKw::new(2500),
            channel_type,
            local: local.party(&secp, CONFIG),
            remote: remote.party(&secp, CONFIG),
        };
        Self { secp, local, remote, parameters }
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut ChannelParameters)) -> Self {
        change(&mut self.parameters);
        self
    }

    pub(crate) fn secrets(&self, side: Side) -> &Secrets {
        match side {
            Side::Local => &self.local,
            Side::Remote => &self.remote,
        }
    }

    pub(crate) fn first_commitment(&self, owner: Side) -> Commitment {
        self.parameters.first_commitment(&self.secp, owner).expect("can be built")
    }

    /// Signed by both.
    pub(crate) fn signed(&self, commitment: &Commitment) -> Transaction {
        let of = |side| {
            let signature =
                self.secp.sign_ecdsa(&commitment.sighash(), &self.secrets(side).funding);
            (&self.parameters.party(side).keys.funding_pubkey, signature)
        };
        commitment.signed(of(Side::Local), of(Side::Remote))
    }

    /// The output that every commitment spends.
    pub(crate) fn funding_output(&self) -> TxOut {
        let [local, remote] = SIDES.map(|side| &self.parameters.party(side).keys.funding_pubkey);
        let FundingOutput { value, script_pubkey } =
            FundingOutput::new(self.parameters.funding_satoshis, local, remote);
        TxOut { value, script_pubkey }
    }

    /// Bitcoin's consensus code on the fully signed `commitment`.
    pub(crate) fn accepted_by_consensus(&self, commitment: &Commitment) -> Result<(), String> {
        let spent = |outpoint: &OutPoint| {
            (*outpoint == self.parameters.funding_outpoint).then(|| self.funding_output())
        };
        self.signed(commitment).verify(spent).map_err(|error| error.to_string())
    }
}

/// The same channel as the other node sees it.
pub(crate) fn mirrored(parameters: &ChannelParameters) -> ChannelParameters {
    ChannelParameters {
        opener: parameters.opener.other(),
        local: parameters.remote,
        remote: parameters.local,
        ..parameters.clone()
    }
}
