//! Latencies in buckets that anybody can recompute: exact below 32 ns, then 32 buckets for each doubling,
//! so that a value is known to about 3 %, up to an hour and a quarter.
//!
//! Why not the serialised form of hdrhistogram: it varies in size and asks its readers for a library.

/// Buckets for each doubling, as a power of two.
const SUB_BITS: u32 = 5;
const SUB_COUNT: u64 = 1 << SUB_BITS;
/// Values from 2^42 ns on (73 minutes) fall into the last bucket.
const VALUE_BITS: u32 = 42;

/// How many buckets there are.
pub const COUNT: usize = ((VALUE_BITS - SUB_BITS + 1) as usize) << SUB_BITS;

/// The bucket of a value.
pub fn index_of(value: u64) -> usize {
    if value < SUB_COUNT {
        return value as usize;
    }
    let exponent = value.ilog2();
    if exponent >= VALUE_BITS {
        return COUNT - 1;
    }
    let sub = (value >> (exponent - SUB_BITS)) & (SUB_COUNT - 1);
    (((exponent - SUB_BITS + 1) as usize) << SUB_BITS) + sub as usize
}

/// The largest value that falls into a bucket; what a percentile reports, so that it never flatters.
pub fn upper_bound(index: usize) -> u64 {
    let index = index.min(COUNT - 1) as u64;
    if index < SUB_COUNT {
        return index;
    }
    let doubling = (index >> SUB_BITS) - 1;
    let sub = index & (SUB_COUNT - 1);
    ((SUB_COUNT + sub + 1) << doubling) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_within_the_bounds_of_its_bucket() {
        for value in (0..20_000)
            .chain((14..42).flat_map(|bits| [(1 << bits) - 1, 1 << bits, (1 << bits) + (1 << bits) / 3]))
        {
            let index = index_of(value);
            assert!(value <= upper_bound(index), "{value}");
            assert!(index == 0 || value > upper_bound(index - 1), "{value}");
            assert!(upper_bound(index) - value <= value / 32 + 1, "{value} is known to 3 %");
        }
    }

    #[test]
    fn buckets_ascend_and_the_last_takes_the_rest() {
        assert!((1..COUNT).all(|index| upper_bound(index) > upper_bound(index - 1)));
        assert_eq!(upper_bound(COUNT - 1), (1 << VALUE_BITS) - 1);
        assert_eq!(index_of(u64::MAX), COUNT - 1);
        assert_eq!(upper_bound(usize::MAX), upper_bound(COUNT - 1));
    }
}
