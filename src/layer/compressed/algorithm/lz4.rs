//! LZ4 blocks.

use lz4_flex::block;

pub(super) fn compress(bytes: &[u8]) -> Vec<u8> {
    block::compress(bytes)
}

pub(super) fn decompress(body: &[u8], length: usize) -> Option<Vec<u8>> {
    // A byte of a block stands for at most 255 bytes of the value.
    if length / 256 > body.len() {
        return None;
    }
    let mut bytes = vec![0; length];
    let written = block::decompress_into(body, &mut bytes).ok()?;
    (written == length).then_some(bytes)
}
