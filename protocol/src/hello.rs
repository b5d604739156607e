//! HELLO: the first frame of either side. Agrees on version, frame size and credits.
//!
//! ```text
//! 0 u32 magic "QKFR" | 4 u16 version_min | 6 u16 version_max | 8 u32 frame_size_max | 12 u32 credits
//! 16 u64 features | 24 u64 zero
//! ```
//!
//! Always: this payload has the same meaning in every version, because it is read before one is chosen (W-70). A
//! longer payload is one from a newer minor version, and its tail is skipped (W-92).

use crate::VERSION;
use crate::header::FRAME_ALIGN;
use crate::limits::{CREDITS_DEFAULT, CREDITS_MAX, FRAME_SIZE_MAX_DEFAULT, FRAME_SIZE_MAX_FLOOR};
use crate::misbehaviour::ClientMisbehaved;
use core::mem::{offset_of, size_of};
use rkyv::api::low;
use rkyv::rancor::Failure;
use rkyv::util::Align;
use rkyv::{Archive, Deserialize, Serialize};

/// Bytes of the payload.
pub const HELLO_SIZE: usize = 32;

/// "QKFR" as a little-endian integer.
pub const MAGIC: u32 = u32::from_le_bytes(*b"QKFR");

/// What one side says of itself.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    /// [`MAGIC`], or the peer speaks something else.
    pub magic: u32,
    /// Client: the lowest version it speaks. Router: the chosen one.
    pub version_min: u16,
    /// Client: the highest version it speaks. Router: the chosen one.
    pub version_max: u16,
    /// Client: the largest frame it wants to exchange, 0 = as the router likes. Router: the limit for both sides.
    pub frame_size_max: u32,
    /// Client: outstanding calls wanted, 0 = as the router likes. Router: granted.
    pub credits: u32,
    /// Optional abilities by bit: none are defined yet.
    pub features: u64,
    /// Zero when written, not looked at when read.
    pub reserved: u64,
}

const _: () = assert!(size_of::<ArchivedHello>() == HELLO_SIZE);
const _: () = assert!(offset_of!(ArchivedHello, magic) == 0);
const _: () = assert!(offset_of!(ArchivedHello, version_min) == 4);
const _: () = assert!(offset_of!(ArchivedHello, version_max) == 6);
const _: () = assert!(offset_of!(ArchivedHello, frame_size_max) == 8);
const _: () = assert!(offset_of!(ArchivedHello, credits) == 12);
const _: () = assert!(offset_of!(ArchivedHello, features) == 16);
const _: () = assert!(offset_of!(ArchivedHello, reserved) == 24);
const _: () = assert!(MAGIC == 0x5246_4B51);

/// What a router has to give to one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// The largest frame it takes and sends.
    pub frame_size_max: u32,
    /// Credits for a client that leaves it to the router.
    pub credits_default: u32,
    /// The most credits it grants.
    pub credits_max: u32,
}

impl Default for Offer {
    fn default() -> Offer {
        Offer {
            frame_size_max: FRAME_SIZE_MAX_DEFAULT,
            credits_default: CREDITS_DEFAULT,
            credits_max: CREDITS_MAX,
        }
    }
}

impl Hello {
    /// What a client of this version says. Zero leaves a choice to the router.
    pub const fn from_client(frame_size_max: u32, credits: u32) -> Hello {
        Hello {
            magic: MAGIC,
            version_min: VERSION,
            version_max: VERSION,
            frame_size_max,
            credits,
            features: 0,
            reserved: 0,
        }
    }

    /// The router's answer to this client: the one place where limits are negotiated (W-71 to W-74).
    pub fn answer(&self, offer: &Offer) -> Result<Hello, ClientMisbehaved> {
        let Hello { version_min, version_max, .. } = *self;
        if !(version_min..=version_max).contains(&VERSION) {
            return Err(ClientMisbehaved::UnsupportedVersion { version_min, version_max });
        }
        let frame_size_max = match self.frame_size_max {
            0 => offer.frame_size_max,
            size_max if size_max < FRAME_SIZE_MAX_FLOOR => {
                return Err(ClientMisbehaved::FrameSizeMaxTooSmall { size_max });
            }
            size_max => size_max.min(offer.frame_size_max),
        };
        let credits = match self.credits {
            0 => offer.credits_default,
            wanted => wanted,
        };
        Ok(Hello::from_client(
            // Frames are multiples of 16, so the limit that can be reached is one too.
            frame_size_max & !(FRAME_ALIGN as u32 - 1),
            credits.min(offer.credits_max).max(1),
        ))
    }

    /// The payload's bytes.
    pub fn encode(&self) -> [u8; HELLO_SIZE] {
        let mut bytes = [0; HELLO_SIZE];
        bytes[0..4].copy_from_slice(&self.magic.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.version_min.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.version_max.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.frame_size_max.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.credits.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.features.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.reserved.to_le_bytes());
        bytes
    }

    /// Reads a payload. Checks the magic; versions and limits are judged by [`Hello::answer`].
    pub fn decode(payload: &[u8]) -> Result<Hello, ClientMisbehaved> {
        let bytes = payload
            .first_chunk::<HELLO_SIZE>()
            .ok_or(ClientMisbehaved::HelloTooShort { size: payload.len() })?;
        let aligned = Align(*bytes);
        let archived = low::access::<ArchivedHello, Failure>(aligned.as_slice())
            .map_err(|_| ClientMisbehaved::HeaderInvalid)?;
        let magic = archived.magic.to_native();
        if magic != MAGIC {
            return Err(ClientMisbehaved::HelloMagicWrong { magic });
        }
        Ok(Hello {
            magic,
            version_min: archived.version_min.to_native(),
            version_max: archived.version_max.to_native(),
            frame_size_max: archived.frame_size_max.to_native(),
            credits: archived.credits.to_native(),
            features: archived.features.to_native(),
            reserved: archived.reserved.to_native(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_asks_for_nothing_gets_the_routers_defaults() {
        let answer = Hello::from_client(0, 0).answer(&Offer::default()).unwrap();
        assert_eq!(answer, Hello::from_client(FRAME_SIZE_MAX_DEFAULT, CREDITS_DEFAULT));
    }

    #[test]
    fn wishes_are_granted_up_to_what_is_offered() {
        let offer = Offer { frame_size_max: 65_536, credits_default: 8, credits_max: 64 };
        let modest = Hello::from_client(4096, 4).answer(&offer).unwrap();
        assert_eq!((modest.frame_size_max, modest.credits), (4096, 4));
        let greedy = Hello::from_client(u32::MAX, u32::MAX).answer(&offer).unwrap();
        assert_eq!((greedy.frame_size_max, greedy.credits), (65_536, 64));
        let odd = Hello::from_client(4111, 1).answer(&offer).unwrap();
        assert_eq!(odd.frame_size_max, 4096);
    }

    #[test]
    fn versions_that_do_not_meet_ours_are_refused() {
        for (version_min, version_max) in [(2, 9), (0, 0), (2, 1), (1, 0)] {
            let hello = Hello { version_min, version_max, ..Hello::from_client(0, 0) };
            assert_eq!(
                hello.answer(&Offer::default()),
                Err(ClientMisbehaved::UnsupportedVersion { version_min, version_max })
            );
        }
        let wide = Hello { version_min: 0, version_max: 7, ..Hello::from_client(0, 0) };
        assert_eq!(wide.answer(&Offer::default()).map(|hello| hello.version_max), Ok(VERSION));
    }

    #[test]
    fn a_frame_limit_below_the_floor_is_refused() {
        assert_eq!(
            Hello::from_client(4095, 0).answer(&Offer::default()),
            Err(ClientMisbehaved::FrameSizeMaxTooSmall { size_max: 4095 })
        );
    }

    #[test]
    fn a_longer_payload_is_read_by_its_known_front_and_a_shorter_one_refused() {
        let hello = Hello::from_client(8192, 16);
        let mut longer = hello.encode().to_vec();
        longer.extend_from_slice(&[7; 16]);
        assert_eq!(Hello::decode(&longer), Ok(hello));
        assert_eq!(Hello::decode(&longer[..31]), Err(ClientMisbehaved::HelloTooShort { size: 31 }));
        longer[0] = b'X';
        assert_eq!(Hello::decode(&longer), Err(ClientMisbehaved::HelloMagicWrong { magic: 0x5246_4B58 }));
    }
}
