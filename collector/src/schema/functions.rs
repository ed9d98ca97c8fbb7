//! Functions that SQL calls. What they give is in files: it must stay as it is.

use rusqlite::{Connection, functions::FunctionFlags};

/// Rows of a part, as a power of two. The index by id is written to in random places within a part,
/// of about a hundred pages, while a look-up has to look into each part.
const PART_BITS: u32 = 14;

/// Bits of an id's hash. In SQL the key of an id in part 0, which is the hash alone, is found by
/// `id_key & 281474976710655`.
const HASH_BITS: u32 = 48;

/// Duration classes to each doubling, as a power of two.
const CLASS_BITS: u32 = 4;

pub(super) fn add_to(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_UTF8;
    connection.create_scalar_function("id_key", 2, flags, |args| {
        let id =
            args.get_raw(1).as_bytes().map_err(|e| rusqlite::Error::UserFunctionError(e.into()))?;
        Ok(id_key(args.get(0)?, id_hash(id)))
    })?;
    connection
        .create_scalar_function("duration_class", 1, flags, |args| Ok(duration_class(args.get(0)?)))
}

/// The part of a row, from 0.
pub(crate) fn part(row: i64) -> i64 {
    row >> PART_BITS
}

/// What the index knows an id by: the part of its row, and a hash. Ids that share a key are told
/// apart by themselves.
pub(crate) fn id_key(row: i64, hash: i64) -> i64 {
    part(row) << HASH_BITS | hash
}

/// The hash of an id in its key.
pub(crate) fn id_hash(id: &[u8]) -> i64 {
    // FNV-1a.
    let hash = id.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (hash >> (64 - HASH_BITS)).cast_signed()
}

/// A coarser measure of how long a span took: -1 for one that goes on. Of two spans, the longer one
/// has the same class or a higher one.
pub(crate) fn duration_class(duration_ns: Option<i64>) -> i64 {
    let Some(duration_ns) = duration_ns else { return -1 };
    let duration_ns = duration_ns.max(0).cast_unsigned();
    let doublings = duration_ns.checked_ilog2().unwrap_or(0).saturating_sub(CLASS_BITS);
    // What the leading bits say within a doubling goes up to twice the number of classes in it.
    (i64::from(doublings) << CLASS_BITS) + (duration_ns >> doublings).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Files hold them.
    #[test]
    fn keys_and_classes_never_change() {
        let key = |row, id| id_key(row, id_hash(id));
        assert_eq!(key(0, b""), 0xcbf2_9ce4_8422);
        assert_eq!(key(16_383, b"a"), 0xaf63_dc4c_8601);
        assert_eq!(key(16_384, b"a"), 0x1_af63_dc4c_8601);
        assert_eq!([None, Some(-5), Some(0), Some(31)].map(duration_class), [-1, 0, 0, 31]);
        assert_eq!([32, 33, 34, 63, 64].map(|ns| duration_class(Some(ns))), [32, 32, 33, 47, 48]);
        assert_eq!(duration_class(Some(1_000_000_000)), 429);
        assert_eq!(duration_class(Some(i64::MAX)), 959);
    }

    proptest! {
        #[test]
        fn longer_spans_have_no_lower_class(a in 0..i64::MAX, b in 0..i64::MAX, shift in 0..60_u32) {
            let (a, b) = (a >> shift, b >> shift);
            let (shorter, longer) = (a.min(b), a.max(b));
            prop_assert!(duration_class(Some(shorter)) <= duration_class(Some(longer)));
        }
    }
}
