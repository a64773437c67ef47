//! Random lives of sequences against the rules: what is reused was written, nothing is held twice,
//! nothing leaks, and a promise of room is kept.

use std::collections::HashMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::*;

/// What a decoder would have in its blocks: the token at each place, and all tokens before it.
#[derive(Default)]
struct Memory(HashMap<(u32, usize), Vec<u32>>);

impl Memory {
    fn write(&mut self, table: &Table, tokens: &[u32], from: usize, to: usize, size: usize) {
        for at in from..to {
            self.0.insert((table.blocks[at / size], at % size), tokens[..=at].to_vec());
        }
    }

    fn check(&self, table: &Table, tokens: &[u32], computed: usize, size: usize) {
        for at in 0..computed {
            let found = self.0.get(&(table.blocks[at / size], at % size));
            assert_eq!(found.map(Vec::as_slice), Some(&tokens[..=at]), "token {at}");
        }
    }

    fn copy(&mut self, (from, to): (u32, u32), size: usize) {
        for at in 0..size {
            if let Some(held) = self.0.get(&(from, at)).cloned() {
                self.0.insert((to, at), held);
            }
        }
    }
}

struct Life {
    table: Table,
    tokens: Vec<u32>,
    computed: usize,
    length: usize,
}

fn whole(blocks: &Blocks) {
    let counts = blocks.counts();
    assert_eq!(counts.total, blocks.nodes.len());
    let idle = blocks.nodes.iter().flatten().filter(|node| node.users == 0).count();
    assert_eq!(idle, blocks.idle);
    assert!(blocks.promised <= blocks.free.len() + blocks.idle, "a promise without room");
    let mut seen = vec![false; counts.total];
    let in_tree = (0u32..).zip(&blocks.nodes).filter(|(_, node)| node.is_some()).map(|(b, _)| b);
    for block in blocks.free.iter().copied().chain(in_tree) {
        assert!(!std::mem::replace(&mut seen[block as usize], true), "block {block} is two things");
    }
}

#[test]
fn random_lives_keep_the_rules() {
    let (mut begun, mut reused_ever) = (0, 0);
    for seed in 0..300 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut below = |n: usize| random.next_u32() as usize % n;
        let (size, total) = (1 + below(5), 4 + below(20));
        let mut blocks = Blocks::new(total, size, seed % 7 != 0);
        let (mut memory, mut lives) = (Memory::default(), Vec::<Life>::new());
        for _ in 0..300 {
            match below(3) {
                0 => {
                    let tokens: Vec<u32> = (0..1 + below(18)).map(|_| below(2) as u32).collect();
                    let length = tokens.len() + 1 + below(12);
                    let Some(begin) = blocks.begin(&tokens, length) else { continue };
                    let (table, computed) = (begin.table, begin.reused);
                    begun += 1;
                    reused_ever += computed;
                    assert!(computed < tokens.len(), "seed {seed}: nothing is left to compute");
                    begin.copy.into_iter().for_each(|copy| memory.copy(copy, size));
                    memory.check(&table, &tokens, computed, size);
                    lives.push(Life { table, tokens, computed, length });
                }
                1 if !lives.is_empty() => {
                    let at = below(lives.len());
                    let life = &mut lives[at];
                    let to = (life.computed + 1 + below(4)).min(life.tokens.len());
                    blocks.grow(&mut life.table, to).expect("it was promised");
                    memory.write(&life.table, &life.tokens, life.computed, to, size);
                    life.computed = to;
                    blocks.keep_full(&mut life.table, &life.tokens, to);
                    memory.check(&life.table, &life.tokens, to, size);
                    if to == life.tokens.len() && to < life.length {
                        life.tokens.push(below(2) as u32);
                    }
                }
                _ if !lives.is_empty() => {
                    let life = lives.swap_remove(below(lives.len()));
                    match below(4) {
                        0 => blocks.abandon(life.table),
                        _ => blocks.end(life.table, &life.tokens, life.computed),
                    }
                }
                _ => {}
            }
            whole(&blocks);
        }
        for life in lives {
            blocks.end(life.table, &life.tokens, life.computed);
        }
        whole(&blocks);
        assert_eq!(blocks.counts().held, 0, "seed {seed}: blocks leak");
        assert_eq!(blocks.promised, 0, "seed {seed}: promises leak");
    }
    assert!(begun > 5_000 && reused_ever > 5_000, "{begun} lives, {reused_ever} tokens reused");
}

fn run(blocks: &mut Blocks, tokens: &[u32], length: usize) -> usize {
    let mut begin = blocks.begin(tokens, length).expect("there is room");
    blocks.grow(&mut begin.table, tokens.len()).expect("it was promised");
    blocks.end(begin.table, tokens, tokens.len());
    begin.reused
}

#[test]
fn the_longest_shared_beginning_is_found_to_the_token() {
    let mut blocks = Blocks::new(16, 4, true);
    assert_eq!(run(&mut blocks, &[1, 2, 3, 4, 5, 6], 8), 0);
    assert_eq!(run(&mut blocks, &[1, 2, 3, 4, 5, 6, 7, 8, 9], 12), 6);
    assert_eq!(run(&mut blocks, &[1, 2, 3, 9], 8), 3);
    assert_eq!(run(&mut blocks, &[1, 2, 3, 4], 8), 3, "the last token is computed again");
    assert_eq!(run(&mut blocks, &[2, 2, 3, 4], 8), 0);
}

#[test]
fn the_longest_unused_goes_first_and_nothing_that_is_held() {
    let mut blocks = Blocks::new(4, 2, true);
    run(&mut blocks, &[1, 1, 1, 1], 4);
    run(&mut blocks, &[2, 2, 2, 2], 4);
    assert_eq!(blocks.counts(), Counts { held: 0, kept: 4, total: 4 });
    let held = blocks.begin(&[1, 1, 1, 1, 1], 5).expect("one more block is needed");
    assert_eq!(held.reused, 4);
    let mut table = held.table;
    blocks.grow(&mut table, 5).expect("it was promised");
    assert!(blocks.begin(&[3, 3, 3], 4).is_none(), "only one block is not held");
    blocks.abandon(table);
    assert_eq!(run(&mut blocks, &[2, 2, 2], 3), 2, "the beginning of the second is still there");
    assert_eq!(run(&mut blocks, &[1, 1, 1, 1, 1], 5), 4);
}

#[test]
fn a_pool_of_one_block_serves_one_sequence_after_the_other() {
    let mut blocks = Blocks::new(1, 512, true);
    for _ in 0..3 {
        // The kept block is the only one, so there is none to copy it to.
        assert_eq!(run(&mut blocks, &[1, 2, 3], 100), 0);
    }
    assert!(blocks.begin(&[1], 513).is_none());
}
