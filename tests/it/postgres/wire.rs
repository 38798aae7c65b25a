//! The part of the Postgres protocol that is needed to detect a COMMIT.

use std::collections::HashSet;

/// A complete message.
pub(crate) struct Message {
    pub(crate) bytes: Vec<u8>,
    /// 0 for the first messages, which have no kind.
    kind: u8,
}

impl Message {
    fn body(&self) -> &[u8] {
        &self.bytes[if self.kind == 0 { 4 } else { 5 }..]
    }

    /// The texts at the start of the body, each of which ends with a zero.
    fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.body().split(|byte| *byte == 0)
    }
}

/// Splits a stream into messages.
pub(crate) struct Messages {
    buffer: Vec<u8>,
    /// The next message has a kind.
    begun: bool,
}

impl Messages {
    /// The messages of a client. The first one has no kind and holds the parameters.
    pub(crate) fn of_a_client() -> Self {
        Self {
            buffer: Vec::new(),
            begun: false,
        }
    }

    pub(crate) fn of_a_server() -> Self {
        Self {
            buffer: Vec::new(),
            begun: true,
        }
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete message.
    pub(crate) fn next(&mut self) -> Option<Message> {
        let kinds = usize::from(self.begun);
        let length = self.buffer.get(kinds..kinds + 4)?;
        let length = u32::from_be_bytes(length.try_into().unwrap());
        let end = kinds + usize::try_from(length).unwrap();
        if self.buffer.len() < end {
            return None;
        }
        let rest = self.buffer.split_off(end);
        let bytes = std::mem::replace(&mut self.buffer, rest);
        let kind = if self.begun { bytes[0] } else { 0 };
        // Protocol 3.x starts a session; the others request encryption or a cancellation.
        self.begun = self.begun || bytes[4..6] == [0, 3];
        Some(Message { bytes, kind })
    }
}

/// Detects the messages of a client that commit.
#[derive(Default)]
pub(crate) struct Commits {
    /// The prepared statements that commit.
    prepared: HashSet<Vec<u8>>,
}

impl Commits {
    pub(crate) fn is_commit(&mut self, message: &Message) -> bool {
        let mut texts = message.texts().map(<[u8]>::to_vec);
        match message.kind {
            b'Q' => commits(&texts.next().unwrap()),
            b'P' => {
                let name = texts.next().unwrap();
                self.prepared.remove(&name);
                if commits(&texts.next().unwrap()) {
                    self.prepared.insert(name);
                }
                false
            }
            b'B' => texts
                .nth(1)
                .is_some_and(|name| self.prepared.contains(&name)),
            _ => false,
        }
    }
}

fn commits(sql: &[u8]) -> bool {
    let sql = String::from_utf8_lossy(sql).to_uppercase();
    let mut statements = sql.split(';').map(str::trim);
    statements.any(|statement| ["COMMIT", "END", "COMMIT WORK"].contains(&statement))
}

/// Whether this message of the server completes a commit.
pub(crate) fn has_committed(message: &Message) -> bool {
    message.kind == b'C' && message.texts().next() == Some(b"COMMIT")
}

/// Whether the message requests encryption, which is answered by a single letter.
pub(crate) fn asks_for_encryption(message: &Message) -> bool {
    let numbers: [u32; 2] = [80_877_103, 80_877_104];
    message.kind == 0 && numbers.iter().any(|n| message.body() == n.to_be_bytes())
}

#[test]
fn a_commit_is_seen_however_it_comes() {
    let mut stream = Messages::of_a_client();
    let mut commits = Commits::default();
    let mut seen = |bytes: &[u8]| {
        stream.add(bytes);
        let messages = std::iter::from_fn(|| stream.next());
        messages.map(|m| commits.is_commit(&m)).collect::<Vec<_>>()
    };
    assert_eq!(seen(&[0, 0, 0, 8, 4, 210, 22, 47]), [false]);
    assert_eq!(seen(&[0, 0, 0, 9, 0, 3, 0, 0, 0]), [false]);
    assert_eq!(seen(b"Q\0\0\0\x0bCOM"), [] as [bool; 0]);
    assert_eq!(seen(b"MIT\0Q\0\0\0\x0bcommIT\0"), [true, true]);
    assert_eq!(seen(b"Q\0\0\0\x0dSELECT 1\0"), [false]);
    assert_eq!(seen(b"Q\0\0\0\x12SELECT;commit\0"), [true]);
    assert_eq!(seen(b"P\0\0\0\x10s1\0COMMIT\0\0\0"), [false]);
    assert_eq!(seen(b"B\0\0\0\x0e\0s1\0\0\0\0\0\0\0"), [true]);
    assert_eq!(seen(b"B\0\0\0\x0e\0s2\0\0\0\0\0\0\0"), [false]);
    assert_eq!(seen(b"S\0\0\0\x04"), [false]);
    assert_eq!(seen(b"P\0\0\0\x0cs1\0SE\0\0\0"), [false]);
    assert_eq!(seen(b"B\0\0\0\x0e\0s1\0\0\0\0\0\0\0"), [false]);
}
