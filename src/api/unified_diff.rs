//! The difference of two texts as upstream tells it: the lines that changed, with three around them.
//!
//! Owns: which lines are taken for the same (Ratcliff's and Obershelp's way, as in Python's difflib), and the hunks.
//! Called by: validation, where a message shows what may not change.
//! Never: reads what the lines say.

use std::collections::HashMap;
use std::ops::Range;

/// Lines shown around a change.
const CONTEXT: usize = 3;
/// From this many lines on, those that repeat often say nothing about what belongs together.
const POPULAR_FROM: usize = 200;
/// Finding the difference takes up to the square of this; beyond it everything between the ends has changed.
const LINES_MAX: usize = 20_000;

/// Lines that are the same in both.
#[derive(Clone, Copy)]
struct Block {
    old: usize,
    new: usize,
    size: usize,
}

struct Change {
    old: Range<usize>,
    new: Range<usize>,
}

struct Lines<'a> {
    old: Vec<&'a str>,
    new: Vec<&'a str>,
    /// Where in `new` each telling line is.
    places: HashMap<&'a str, Vec<usize>>,
}

/// ```text
/// @@ -1,3 +1,3 @@
///  {
/// - "Name": "a"
/// + "Name": "b"
///  }
/// ```
pub fn unified(old: &str, new: &str) -> String {
    let lines = Lines::new(old, new);
    let changes = lines.changes();
    let mut out = String::new();
    let mut rest = &changes[..];
    while !rest.is_empty() {
        let near = rest.windows(2).take_while(|pair| pair[1].old.start - pair[0].old.end <= 2 * CONTEXT).count();
        let (hunk, others) = rest.split_at(near + 1);
        lines.write_hunk(&mut out, hunk);
        rest = others;
    }
    out
}

impl<'a> Lines<'a> {
    fn new(old: &'a str, new: &'a str) -> Self {
        let (old, new): (Vec<&str>, Vec<&str>) = (old.split('\n').collect(), new.split('\n').collect());
        let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
        for (i, line) in new.iter().enumerate() {
            places.entry(line).or_default().push(i);
        }
        if new.len() >= POPULAR_FROM {
            places.retain(|_, at| at.len() <= new.len() / 100 + 1);
        }
        Self { old, new, places }
    }

    fn changes(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        let (mut old, mut new) = (0, 0);
        let end = Block { old: self.old.len(), new: self.new.len(), size: 0 };
        for block in self.blocks().into_iter().chain([end]) {
            if old < block.old || new < block.new {
                changes.push(Change { old: old..block.old, new: new..block.new });
            }
            (old, new) = (block.old + block.size, block.new + block.size);
        }
        changes
    }

    /// The longest block, and again so on either side of it, in order.
    fn blocks(&self) -> Vec<Block> {
        if self.old.len().max(self.new.len()) > LINES_MAX {
            return Vec::new();
        }
        let mut found = Vec::new();
        let mut open = vec![(0..self.old.len(), 0..self.new.len())];
        while let Some((old, new)) = open.pop() {
            let block = self.longest(&old, &new);
            if block.size > 0 {
                open.push((old.start..block.old, new.start..block.new));
                open.push((block.old + block.size..old.end, block.new + block.size..new.end));
                found.push(block);
            }
        }
        found.sort_by_key(|b| b.old);
        found
    }

    /// The longest run of telling lines, the first of equals, and the lines beside it that are the same too.
    fn longest(&self, old: &Range<usize>, new: &Range<usize>) -> Block {
        let mut best = Block { old: old.start, new: new.start, size: 0 };
        let mut runs: HashMap<usize, usize> = HashMap::new();
        for i in old.clone() {
            let mut next = HashMap::new();
            let places = self.places.get(self.old[i]).map_or(&[][..], Vec::as_slice);
            for &j in places.iter().filter(|j| new.contains(j)) {
                let size = 1 + j.checked_sub(1).and_then(|before| runs.get(&before)).copied().unwrap_or(0);
                next.insert(j, size);
                if size > best.size {
                    best = Block { old: i + 1 - size, new: j + 1 - size, size };
                }
            }
            runs = next;
        }
        while best.old > old.start && best.new > new.start && self.old[best.old - 1] == self.new[best.new - 1] {
            best = Block { old: best.old - 1, new: best.new - 1, size: best.size + 1 };
        }
        let after = |b: Block| (b.old + b.size, b.new + b.size);
        while let (i, j) = after(best)
            && i < old.end
            && j < new.end
            && self.old[i] == self.new[j]
        {
            best.size += 1;
        }
        best
    }

    fn write_hunk(&self, out: &mut String, changes: &[Change]) {
        let (Some(first), Some(last)) = (changes.first(), changes.last()) else { return };
        let before = CONTEXT.min(first.old.start);
        let after = CONTEXT.min(self.old.len() - last.old.end);
        let (old, new) = (span(&first.old, &last.old, before, after), span(&first.new, &last.new, before, after));
        out.push_str(&format!("@@ -{} +{} @@\n", place(&old), place(&new)));
        let mut at = old.start;
        for change in changes {
            write_lines(out, ' ', &self.old[at..change.old.start]);
            write_lines(out, '-', &self.old[change.old.clone()]);
            write_lines(out, '+', &self.new[change.new.clone()]);
            at = change.old.end;
        }
        write_lines(out, ' ', &self.old[at..old.end]);
    }
}

fn span(first: &Range<usize>, last: &Range<usize>, before: usize, after: usize) -> Range<usize> {
    first.start - before..last.end + after
}

/// Lines count from one; no lines are told by the one before them.
fn place(lines: &Range<usize>) -> String {
    match lines.len() {
        0 => format!("{},0", lines.start),
        1 => format!("{}", lines.start + 1),
        count => format!("{},{count}", lines.start + 1),
    }
}

fn write_lines(out: &mut String, mark: char, lines: &[&str]) {
    for line in lines {
        out.push(mark);
        out.push_str(line);
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_that_are_near_share_a_hunk() {
        let old = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl\nm";
        let new = "a\nB\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl\nm\nn";
        let hunks = "@@ -1,5 +1,5 @@\n a\n-b\n+B\n c\n d\n e\n@@ -11,3 +11,4 @@\n k\n l\n m\n+n\n";
        assert_eq!(unified(old, new), hunks);
        assert_eq!(unified("a\nb\nc\nd", "x\nb\nc\ny"), "@@ -1,4 +1,4 @@\n-a\n+x\n b\n c\n-d\n+y\n");
        assert_eq!(unified(old, old), "");
    }

    #[test]
    fn in_a_long_text_lines_that_repeat_do_not_tell_what_belongs_together() {
        let block = |name: &str| format!("name {name}\nnull\nnull\nnull\n");
        let text = |names: &[&str]| names.iter().map(|name| block(name)).collect::<String>();
        let all: Vec<String> = (0..60).map(|i| i.to_string()).collect();
        let mut names: Vec<&str> = all.iter().map(String::as_str).collect();
        let old = text(&names);
        names.remove(30);
        let change =
            "@@ -118,10 +118,6 @@\n null\n null\n null\n-name 30\n-null\n-null\n-null\n name 31\n null\n null\n";
        assert_eq!(unified(&old, &text(&names)), change);
    }
}
