//! `str.capitalize` and `str.title`.

/// The first letter in title case, the others in lower case.
pub fn capitalize(text: &str) -> String {
    let lowered = text.to_lowercase();
    let mut chars = text.chars();
    let Some(first) = chars.next() else {
        return lowered;
    };
    let skipped = first.to_lowercase().count();
    title_of(first)
        .into_iter()
        .chain(lowered.chars().skip(skipped))
        .collect()
}

/// The first letter of every run of letters in title case, the others in lower case.
pub fn title(text: &str) -> String {
    // Lower case of the whole text, because a sigma at the end of a word has a form of its own.
    let lowered = text.to_lowercase();
    let mut lowered = lowered.chars();
    let mut out = String::with_capacity(text.len());
    let mut in_word = false;
    for c in text.chars() {
        let lower: Vec<char> = lowered.by_ref().take(c.to_lowercase().count()).collect();
        if in_word {
            out.extend(lower);
        } else {
            out.extend(title_of(c));
        }
        in_word = is_cased(c);
    }
    out
}

/// Unicode's `Cased`.
fn is_cased(c: char) -> bool {
    c.is_lowercase() || c.is_uppercase() || is_title(c)
}

/// Letters that are in title case and in no other: digraphs, and Greek capitals with an iota beside them.
fn is_title(c: char) -> bool {
    matches!(
        c,
        '\u{1c5}' | '\u{1c8}' | '\u{1cb}' | '\u{1f2}' | '\u{1f88}'..='\u{1f8f}' | '\u{1f98}'..='\u{1f9f}'
            | '\u{1fa8}'..='\u{1faf}' | '\u{1fbc}' | '\u{1fcc}' | '\u{1ffc}'
    )
}

/// Title case of a character: upper case, but only of the first of several letters in one.
fn title_of(c: char) -> Vec<char> {
    const IOTA: char = '\u{399}';
    const IOTA_BELOW: char = '\u{345}';
    let moved =
        |by: i32| char::from_u32(u32::from(c).wrapping_add_signed(by)).map_or_else(|| vec![c], |c| vec![c]);
    match c {
        c if is_title(c) => vec![c],
        '\u{1c4}' | '\u{1c7}' | '\u{1ca}' | '\u{1f1}' => moved(1),
        '\u{1c6}' | '\u{1c9}' | '\u{1cc}' | '\u{1f3}' => moved(-1),
        '\u{1f80}'..='\u{1f87}' | '\u{1f90}'..='\u{1f97}' | '\u{1fa0}'..='\u{1fa7}' => moved(8),
        '\u{1fb3}' | '\u{1fc3}' | '\u{1ff3}' => moved(9),
        // Georgian has capitals, but no word begins with one.
        '\u{10d0}'..='\u{10fa}' | '\u{10fd}'..='\u{10ff}' => vec![c],
        '\u{149}' => vec!['\u{2bc}', 'N'],
        '\u{1f80}'..='\u{1fff}' => c
            .to_uppercase()
            .map(|upper| {
                if upper == IOTA && c != '\u{1fbe}' {
                    IOTA_BELOW
                } else {
                    upper
                }
            })
            .collect(),
        _ => {
            let mut upper = c.to_uppercase();
            let first = upper.next();
            first
                .into_iter()
                .chain(upper.flat_map(char::to_lowercase))
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each line is what Python 3.11.7 gives.
    #[test]
    fn texts_change_as_in_python() {
        for (text, capitalized, titled) in [
            ("it's a TEST", "It's a test", "It'S A Test"),
            ("ßtraße ﬁn", "Sstraße ﬁn", "Sstraße Fin"),
            ("ǆ ǅ Ǆ", "ǅ ǆ ǆ", "ǅ ǅ ǅ"),
            ("ΟΔΥΣΣΕΥΣ ΣΑΣ", "Οδυσσευς σας", "Οδυσσευς Σας"),
            ("ᾳ ᾀ ŉ", "ᾼ ᾀ ŉ", "ᾼ ᾈ ʼN"),
            ("გა İX", "გა i̇x", "გა İx"),
            ("", "", ""),
            ("1a b2c", "1a b2c", "1A B2C"),
        ] {
            assert_eq!(capitalize(text), capitalized);
            assert_eq!(title(text), titled);
        }
    }
}
