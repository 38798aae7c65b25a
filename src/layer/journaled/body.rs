//! The header of a journal: its map, and the tokens of its owner.

use bytes::Buf;

use crate::{
    batch::WriterId,
    journal::{put_bytes, read_text},
    name::MapName,
};

/// The tokens under which the remote knows this journal. A new one is durable here before it
/// is put into the remote; until that is known, the remote may hold either.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tokens {
    /// A token that the remote has confirmed.
    pub(super) confirmed: Option<WriterId>,
    pub(super) latest: Option<WriterId>,
}

impl Tokens {
    pub(super) fn contain(self, token: WriterId) -> bool {
        [self.confirmed, self.latest].contains(&Some(token))
    }
}

/// The body of the header.
pub(super) struct Body {
    pub(super) id: u64,
    pub(super) tokens: Tokens,
    /// The number of the first entry.
    pub(super) first: u64,
    pub(super) map: MapName,
}

impl Body {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.id.to_le_bytes().to_vec();
        for token in [self.tokens.confirmed, self.tokens.latest] {
            out.extend(token.map_or(0, WriterId::get).to_le_bytes());
        }
        out.extend(self.first.to_le_bytes());
        put_bytes(&mut out, self.map.as_str().as_bytes());
        out
    }

    pub(super) fn read(mut body: &[u8]) -> Option<Self> {
        let from = &mut body;
        let id = from.try_get_u64_le().ok()?;
        let mut token = || {
            let number = from.try_get_u128_le().ok()?;
            Some((number != 0).then(|| WriterId::new(number)))
        };
        let (confirmed, latest) = (token()?, token()?);
        Some(Self {
            id,
            tokens: Tokens { confirmed, latest },
            first: from.try_get_u64_le().ok()?,
            map: MapName::parse(read_text(from)?).ok()?,
        })
    }
}
