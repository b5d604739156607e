//! Recycled blocks for bytes that wait, in classes of powers of two.
//!
//! Always: a block given back is the next one given out, so that a short queue stays in the cache.
//! Never: allocates once it has grown to what is needed; never shrinks (its size is bounded by who uses it).
#![forbid(unsafe_code)]

/// Two cache lines would waste half of them on the commonest payloads of 32 bytes; one does not.
const BLOCK_SIZE_MIN: usize = 64;
/// Blocks are cut from allocations of this size, or stand alone if larger.
const SLAB_SIZE: usize = 256 * 1024;
/// From 64 bytes to 64 << 25 = 2 GiB: any frame there can be.
const CLASS_COUNT: usize = 26;

/// A block in use. Copied freely: who holds it is [`super::Payloads`]' business.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    class: u8,
    index: u32,
}

#[derive(Default)]
struct Class {
    slabs: Vec<Box<[u8]>>,
    block_count: u32,
    free: Vec<u32>,
}

/// All classes.
pub struct Pool {
    classes: [Class; CLASS_COUNT],
}

impl Default for Pool {
    fn default() -> Self {
        Pool { classes: std::array::from_fn(|_| Class::default()) }
    }
}

/// Bytes that a body of `size` takes from the pool.
#[inline]
pub fn claim(size: usize) -> u64 {
    size.next_power_of_two().max(BLOCK_SIZE_MIN) as u64
}

impl Pool {
    /// Copies both parts, one behind the other, into a block.
    #[inline]
    pub fn store(&mut self, front: &[u8], back: &[u8]) -> Block {
        let size = front.len() + back.len();
        let class = claim(size).trailing_zeros() as usize - BLOCK_SIZE_MIN.trailing_zeros() as usize;
        let index = match self.classes[class].free.pop() {
            Some(index) => index,
            None => self.grow(class),
        };
        let block = Block { class: class as u8, index };
        let (slab, start) = locate(block);
        let bytes = &mut self.classes[class].slabs[slab][start..start + size];
        bytes[..front.len()].copy_from_slice(front);
        bytes[front.len()..].copy_from_slice(back);
        block
    }

    /// The first `size` bytes of a block.
    #[inline]
    pub fn bytes(&self, block: Block, size: usize) -> &[u8] {
        let (slab, start) = locate(block);
        &self.classes[usize::from(block.class)].slabs[slab][start..start + size]
    }

    /// Frees a block.
    #[inline]
    pub fn give_back(&mut self, block: Block) {
        self.classes[usize::from(block.class)].free.push(block.index);
    }

    #[cold]
    fn grow(&mut self, class: usize) -> u32 {
        let block_size = BLOCK_SIZE_MIN << class;
        let per_slab = (SLAB_SIZE / block_size).max(1) as u32;
        let class = &mut self.classes[class];
        class.slabs.push(vec![0; block_size * per_slab as usize].into_boxed_slice());
        let first = class.block_count;
        class.block_count += per_slab;
        class.free.extend((first + 1..class.block_count).rev());
        first
    }
}

/// Which slab a block lies in, and where.
#[inline]
fn locate(block: Block) -> (usize, usize) {
    let block_size = BLOCK_SIZE_MIN << block.class;
    let per_slab = (SLAB_SIZE / block_size).max(1);
    let index = block.index as usize;
    (index / per_slab, index % per_slab * block_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_every_class_keep_their_own_bytes() {
        let mut pool = Pool::default();
        let sizes = [0, 1, 64, 65, 4096, 100_000, 256 * 1024, 256 * 1024 + 1, 1 << 20];
        let blocks: Vec<_> = (0..3)
            .flat_map(|round| sizes.map(|size| (size, (size + round) as u8)))
            .map(|(size, fill)| (pool.store(&vec![fill; size / 2], &vec![fill; size - size / 2]), size, fill))
            .collect();
        for (block, size, fill) in &blocks {
            assert!(pool.bytes(*block, *size).iter().all(|byte| byte == fill));
        }
    }

    #[test]
    fn a_block_given_back_is_used_again_before_the_pool_grows() {
        let mut pool = Pool::default();
        let first = pool.store(&[1; 32], &[]);
        pool.give_back(first);
        for _ in 0..100_000 {
            let block = pool.store(&[2; 32], &[]);
            assert_eq!(block, first);
            pool.give_back(block);
        }
        assert_eq!(pool.classes[0].slabs.len(), 1);
    }
}
