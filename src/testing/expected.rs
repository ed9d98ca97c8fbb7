use super::line::is_anything;

/// A line of an expected tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expected<'a> {
    pub(super) depth: usize,
    /// Without the indent.
    pub(super) text: &'a str,
}

/// The lines of a tree that is indented like code, empty ones left out. How far a level is indented
/// does not matter, nor how far all of it is.
pub(super) fn parse(text: &str) -> Result<Vec<Expected<'_>>, String> {
    let mut lines: Vec<Expected<'_>> = Vec::new();
    let mut levels: Vec<usize> = Vec::new();
    for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        while levels.last().is_some_and(|level| *level > indent) {
            levels.pop();
        }
        if levels.last() != Some(&indent) {
            let is_first = lines.is_empty();
            let is_deeper = lines.last().is_some_and(|last| levels.len() == last.depth + 1);
            if !is_first && !is_deeper {
                return Err(format!("`{text}` is indented like no line above it"));
            }
            if lines.last().is_some_and(|last| is_anything(last.text)) {
                return Err(format!("`{text}` stands below …, which has no children of its own"));
            }
            levels.push(indent);
        }
        lines.push(Expected { depth: levels.len() - 1, text });
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<(usize, &str)> {
        parse(text).unwrap().into_iter().map(|line| (line.depth, line.text)).collect()
    }

    #[test]
    fn depth_is_told_by_the_indent_however_wide_it_is() {
        let tree = "
            a
                b c
                 d
                …

                e
            f";
        assert_eq!(parsed(tree), [(0, "a"), (1, "b c"), (2, "d"), (1, "…"), (1, "e"), (0, "f")]);
        assert_eq!(parsed("a\r\n  b\r\n"), [(0, "a"), (1, "b")]);
        assert_eq!(parsed(" \n"), []);
    }

    #[test]
    fn an_indent_that_fits_no_line_above_is_refused() {
        assert!(parse("a\n    b\n  c").unwrap_err().contains("`c`"));
        assert!(parse("  a\nb").unwrap_err().contains("`b`"));
        assert!(parse("a\n  …\n    b").unwrap_err().contains("`b`"));
    }
}
