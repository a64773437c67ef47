//! Whose KV blocks are whose: a pool of blocks, the tables of running sequences, and a tree of blocks
//! that finished ones leave behind, found again by the tokens that they hold. Knows block numbers and
//! tokens alone; what is in a block only the decoder knows.
//!
//! Room for a sequence's longest length is promised when it begins and drawn as it grows, so that none
//! ever waits for another in the middle. Kept blocks count as free: the longest unused go first.

use crate::error::{Error, Kind, Result};

/// A sequence's blocks, in order. The first `kept` are in the tree, where others may share them.
#[derive(Default)]
pub struct Table {
    /// Block numbers, for the decoder.
    pub blocks: Vec<u32>,
    kept: usize,
    /// Blocks that it may still draw.
    promised: usize,
}

/// What a sequence begins with.
pub struct Begin {
    /// Its blocks so far.
    pub table: Table,
    /// Tokens of it whose keys and values are there already.
    pub reused: usize,
    /// Blocks to be copied, from and to, before its first step.
    pub copy: Option<(u32, u32)>,
}

/// Blocks by what is done with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Blocks that running sequences hold.
    pub held: usize,
    /// Blocks kept for prompts to come.
    pub kept: usize,
    /// Blocks there are.
    pub total: usize,
}

/// A block in the tree: what it holds, and what it follows.
struct Node {
    tokens: Box<[u32]>,
    parent: Option<u32>,
    children: Vec<u32>,
    /// Running sequences that hold it.
    users: usize,
    /// When it was last taken up or let go, by a count of such moments.
    used: u64,
}

/// The blocks of one decoder.
pub struct Blocks {
    block_tokens: usize,
    keep: bool,
    free: Vec<u32>,
    /// By block number.
    nodes: Vec<Option<Node>>,
    roots: Vec<u32>,
    /// Blocks in the tree that nobody holds.
    idle: usize,
    /// Blocks promised and not drawn yet; never more than are free or idle.
    promised: usize,
    moment: u64,
}

impl Blocks {
    /// `total` blocks of so many tokens, all free; `keep` says whether finished sequences leave
    /// theirs behind.
    pub fn new(total: usize, block_tokens: usize, keep: bool) -> Self {
        let total = u32::try_from(total).unwrap_or(u32::MAX);
        Blocks {
            block_tokens: block_tokens.max(1),
            keep,
            free: (0..total).rev().collect(),
            nodes: (0..total).map(|_| None).collect(),
            roots: Vec::new(),
            idle: 0,
            promised: 0,
            moment: 0,
        }
    }

    /// Begins a sequence of these tokens that may become `length` tokens long; none if there is no
    /// room for it now. At least the last token is left to compute, since its logits are wanted.
    pub fn begin(&mut self, tokens: &[u32], length: usize) -> Option<Begin> {
        let known = &tokens[..tokens.len().saturating_sub(1)];
        let (path, partial) = self.find(known);
        let wanted = length.max(1).div_ceil(self.block_tokens).saturating_sub(path.len());
        let idle_on_path = path.iter().filter(|block| self.users(**block) == 0).count();
        let taken = idle_on_path + self.promised;
        if wanted > (self.free.len() + self.idle).saturating_sub(taken) {
            return None;
        }
        path.iter().for_each(|block| self.hold(*block));
        self.promised += wanted;
        let reused = path.len() * self.block_tokens;
        let mut table = Table { kept: path.len(), blocks: path, promised: wanted };
        let copied = partial.and_then(|(from, count)| {
            self.copy_target(from, &mut table).map(|to| ((from, to), count))
        });
        Some(Begin {
            table,
            reused: reused + copied.map_or(0, |(_, count)| count),
            copy: copied.map(|(copy, _)| copy),
        })
    }

    /// Draws blocks until `table` has room for `length` tokens.
    ///
    /// # Errors
    /// [`Kind::Internal`] beyond what was promised at the beginning.
    pub fn grow(&mut self, table: &mut Table, length: usize) -> Result<()> {
        while table.blocks.len() * self.block_tokens < length {
            let drawn = (table.promised > 0).then(|| self.draw()).flatten().ok_or_else(|| {
                let what = format!(
                    "expected room for {length} tokens, found {} blocks; please report this",
                    table.blocks.len()
                );
                Error::new(Kind::Internal, what)
            })?;
            table.blocks.push(drawn);
            table.promised -= 1;
            self.promised -= 1;
        }
        Ok(())
    }

    /// Keeps what is full by now, for others to share; `computed` tokens have keys and values.
    pub fn keep_full(&mut self, table: &mut Table, tokens: &[u32], computed: usize) {
        while self.keep && (table.kept + 1) * self.block_tokens <= computed {
            let begin = table.kept * self.block_tokens;
            let held = &tokens[begin..begin + self.block_tokens];
            let (block, parent) = (table.blocks[table.kept], table.parent());
            let known = self.children(parent).iter().copied().find(|c| self.tokens(*c) == held);
            match known {
                // Another sequence was faster; both hold the same, so one is enough.
                Some(other) => {
                    self.hold(other);
                    table.blocks[table.kept] = other;
                    self.free.push(block);
                }
                None => self.insert(block, parent, held, 1),
            }
            table.kept += 1;
        }
    }

    /// Ends a sequence whose first `computed` tokens have keys and values; they are kept.
    pub fn end(&mut self, mut table: Table, tokens: &[u32], computed: usize) {
        self.keep_full(&mut table, tokens, computed);
        let rest = &tokens[(table.kept * self.block_tokens).min(computed)..computed];
        let parent = table.parent();
        let known = || self.children(parent).iter().any(|c| self.tokens(*c).starts_with(rest));
        if self.keep && !rest.is_empty() && !known() {
            let block = table.blocks.remove(table.kept);
            self.insert(block, parent, rest, 0);
        }
        self.abandon(table);
    }

    /// Ends a sequence and keeps nothing but what is kept already.
    pub fn abandon(&mut self, table: Table) {
        self.promised -= table.promised;
        let (kept, own) = table.blocks.split_at(table.kept);
        self.free.extend(own.iter().rev());
        kept.iter().rev().for_each(|block| self.release(*block));
    }

    /// How many blocks are held, kept and there.
    pub fn counts(&self) -> Counts {
        let total = self.nodes.len();
        Counts { held: total - self.free.len() - self.idle, kept: self.idle, total }
    }

    /// The longest kept beginning of `tokens`: whole blocks, and then one that begins as the rest
    /// does, with the number of tokens that they share.
    fn find(&self, tokens: &[u32]) -> (Vec<u32>, Option<(u32, usize)>) {
        let mut path: Vec<u32> = Vec::new();
        loop {
            let rest = &tokens[path.len() * self.block_tokens..];
            let children = self.children(path.last().copied());
            let shared = |child: u32| {
                self.tokens(child).iter().zip(rest).take_while(|(a, b)| a == b).count()
            };
            let best = children.iter().map(|child| (*child, shared(*child)));
            match best.max_by_key(|(_, count)| *count).filter(|(_, count)| *count > 0) {
                Some((child, count)) if count == self.block_tokens => path.push(child),
                partial => return (path, partial),
            }
        }
    }

    /// A block for a copy of `from`, drawn without giving up `from` itself; none if it is the last.
    fn copy_target(&mut self, from: u32, table: &mut Table) -> Option<u32> {
        self.hold(from);
        let target = (table.promised > 0).then(|| self.draw()).flatten();
        self.release(from);
        let target = target?;
        table.blocks.push(target);
        table.promised -= 1;
        self.promised -= 1;
        Some(target)
    }

    /// A free block, or the one that was unused for longest.
    fn draw(&mut self) -> Option<u32> {
        if self.free.is_empty() {
            self.evict()?;
        }
        self.free.pop()
    }

    fn evict(&mut self) -> Option<()> {
        let nodes = (0u32..).zip(&self.nodes);
        let leaves = nodes.filter_map(|(block, node)| {
            let node = node.as_ref()?;
            (node.users == 0 && node.children.is_empty()).then_some((node.used, block))
        });
        let (_, oldest) = leaves.min()?;
        self.remove(oldest);
        Some(())
    }

    /// Takes an idle leaf out of the tree; its block is free.
    fn remove(&mut self, block: u32) {
        let Some(node) = self.nodes[block as usize].take() else { return };
        self.siblings(node.parent).retain(|other| *other != block);
        self.idle -= 1;
        self.free.push(block);
    }

    fn insert(&mut self, block: u32, parent: Option<u32>, tokens: &[u32], users: usize) {
        // What held only the beginning of this is of no more use.
        let children = self.children(parent).iter().copied();
        let outdone = children.filter(|child| {
            let node = self.node(*child);
            node.users == 0 && node.children.is_empty() && tokens.starts_with(&node.tokens)
        });
        for child in outdone.collect::<Vec<u32>>() {
            self.remove(child);
        }
        self.siblings(parent).push(block);
        self.moment += 1;
        let (tokens, children) = (tokens.into(), Vec::new());
        let node = Node { tokens, parent, children, users, used: self.moment };
        self.nodes[block as usize] = Some(node);
        self.idle += usize::from(users == 0);
    }

    fn hold(&mut self, block: u32) {
        self.moment += 1;
        let moment = self.moment;
        let node = self.node_mut(block);
        node.used = moment;
        node.users += 1;
        self.idle -= usize::from(self.users(block) == 1);
    }

    fn release(&mut self, block: u32) {
        self.moment += 1;
        let moment = self.moment;
        let node = self.node_mut(block);
        node.used = moment;
        node.users -= 1;
        self.idle += usize::from(self.users(block) == 0);
    }

    fn node(&self, block: u32) -> &Node {
        self.nodes[block as usize].as_ref().expect("only blocks in the tree are asked for")
    }

    fn node_mut(&mut self, block: u32) -> &mut Node {
        self.nodes[block as usize].as_mut().expect("only blocks in the tree are asked for")
    }

    fn users(&self, block: u32) -> usize {
        self.node(block).users
    }

    fn tokens(&self, block: u32) -> &[u32] {
        &self.node(block).tokens
    }

    fn children(&self, parent: Option<u32>) -> &[u32] {
        parent.map_or(&self.roots, |parent| &self.node(parent).children)
    }

    fn siblings(&mut self, parent: Option<u32>) -> &mut Vec<u32> {
        match parent {
            Some(parent) => &mut self.node_mut(parent).children,
            None => &mut self.roots,
        }
    }
}

impl Table {
    /// The last block of it that is in the tree.
    fn parent(&self) -> Option<u32> {
        self.kept.checked_sub(1).map(|at| self.blocks[at])
    }
}

#[cfg(test)]
mod tests;
