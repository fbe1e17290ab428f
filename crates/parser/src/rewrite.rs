//! Spellings of Postgres that `sqlparser` does not read, rewritten into ones that it does. Only where nothing is lost.

use sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::dialect::is_word;

pub(crate) fn rewrite(tokens: &mut Vec<TokenWithSpan>) {
    let first = tokens.iter().find(|t| is_solid(t));
    let starts_with = |word| first.is_some_and(|t| is_word(&t.token, word));
    if starts_with("BEGIN") || starts_with("START") || starts_with("SET") {
        drop_deferrable(tokens);
    } else if starts_with("FETCH") && !tokens.iter().any(|t| is_word(&t.token, "WITH")) {
        spell_out_fetch(tokens);
    }
    drop_only(tokens);
    name_savepoints(tokens);
    move_exclusions(tokens);
}

/// Begins a text in PARTITION BY that says what a frame excludes. Nobody types the control character.
pub const EXCLUSION_MARK: &str = "\u{1}exclude ";

/// `(… ROWS … EXCLUDE TIES)` becomes `(PARTITION BY mark, … ROWS …)`: a constant to partition by changes nothing, and can be
/// found by whoever plans the query.
fn move_exclusions(tokens: &mut Vec<TokenWithSpan>) {
    let mut from = 0;
    while let Some(exclusion) = next_exclusion(tokens, from) {
        from = exclusion.words.start;
        let Some(open) = opening(tokens, exclusion.words.start) else {
            continue;
        };
        let span = tokens[exclusion.words.start].span;
        tokens.drain(exclusion.words.clone());
        let Some(what) = exclusion.what else {
            continue;
        };
        let partition = partition_by(tokens, open, from);
        let mark = [
            Token::SingleQuotedString(format!("{EXCLUSION_MARK}{what}")),
            Token::DoubleColon,
            Token::make_word("text", None),
        ];
        let inserted: Vec<Token> = match partition {
            Some(_) => mark.into_iter().chain([Token::Comma]).collect(),
            None => [Token::make_keyword("PARTITION"), Token::make_keyword("BY")]
                .into_iter()
                .chain(mark)
                .collect(),
        };
        let at = partition.unwrap_or_else(|| behind_name(tokens, open, from));
        let count = inserted.len();
        let inserted = inserted
            .into_iter()
            .map(|token| TokenWithSpan::new(token, span));
        tokens.splice(at..at, inserted);
        from += count;
    }
}

struct ExclusionWords {
    words: std::ops::Range<usize>,
    /// None: nothing is excluded.
    what: Option<&'static str>,
}

/// The next `EXCLUDE …` that ends a parenthesis in which there is a frame.
fn next_exclusion(tokens: &[TokenWithSpan], from: usize) -> Option<ExclusionWords> {
    const FORMS: [(&[&str], Option<&str>); 4] = [
        (&["EXCLUDE", "CURRENT", "ROW"], Some("current row")),
        (&["EXCLUDE", "GROUP"], Some("group")),
        (&["EXCLUDE", "TIES"], Some("ties")),
        (&["EXCLUDE", "NO", "OTHERS"], None),
    ];
    let solid: Vec<usize> = (from..tokens.len())
        .filter(|i| is_solid(&tokens[*i]))
        .collect();
    (0..solid.len()).find_map(|start| {
        FORMS.iter().find_map(|(words, what)| {
            let found = solid.get(start..start + words.len())?;
            let spelled = found
                .iter()
                .zip(*words)
                .all(|(i, word)| is_word(&tokens[*i].token, word));
            let closed = solid.get(start + words.len());
            let closed = closed.is_some_and(|i| tokens[*i].token == Token::RParen);
            (spelled && closed).then(|| ExclusionWords {
                words: found[0]..found[words.len() - 1] + 1,
                what: *what,
            })
        })
    })
}

/// The parenthesis that is open at a token, if it holds a frame.
fn opening(tokens: &[TokenWithSpan], at: usize) -> Option<usize> {
    let (mut depth, mut framed) = (0, false);
    for (index, token) in tokens[..at].iter().enumerate().rev() {
        match &token.token {
            Token::RParen => depth += 1,
            Token::LParen if depth == 0 => return framed.then_some(index),
            Token::LParen => depth -= 1,
            word if depth == 0 => {
                framed |= ["ROWS", "RANGE", "GROUPS"].iter().any(|w| is_word(word, w));
            }
            _ => {}
        }
    }
    None
}

/// The place behind `PARTITION BY` in a window.
fn partition_by(tokens: &[TokenWithSpan], open: usize, end: usize) -> Option<usize> {
    let mut depth = 0;
    let mut last_was_partition = false;
    for (index, token) in tokens.iter().enumerate().take(end).skip(open + 1) {
        if !is_solid(token) {
            continue;
        }
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            word if depth == 0 && last_was_partition && is_word(word, "BY") => {
                return Some(index + 1);
            }
            _ => {}
        }
        last_was_partition = is_word(&token.token, "PARTITION");
    }
    None
}

/// The place where a window's own clauses begin: behind the name of another one that it builds on.
fn behind_name(tokens: &[TokenWithSpan], open: usize, end: usize) -> usize {
    let first = (open + 1..end).find(|i| is_solid(&tokens[*i]));
    match first {
        Some(first) => {
            let clause = ["ORDER", "ROWS", "RANGE", "GROUPS"];
            let named = !clause
                .iter()
                .any(|word| is_word(&tokens[first].token, word));
            first + usize::from(named)
        }
        None => open + 1,
    }
}

fn is_solid(token: &TokenWithSpan) -> bool {
    !matches!(token.token, Token::Whitespace(_))
}

/// Takes `ONLY` from in front of tables: no table of ours has others that inherit from it.
fn drop_only(tokens: &mut Vec<TokenWithSpan>) {
    let mut behind_table_word = false;
    tokens.retain(|token| {
        if !is_solid(token) {
            return true;
        }
        let only = behind_table_word && is_word(&token.token, "ONLY");
        behind_table_word = ["FROM", "JOIN", "UPDATE"]
            .iter()
            .any(|word| is_word(&token.token, word));
        !only
    });
}

/// `AS OF SAVEPOINT name` becomes `AS OF tidegate_savepoint('name')`, which is an expression.
fn name_savepoints(tokens: &mut Vec<TokenWithSpan>) {
    let mut from = 0;
    loop {
        let solid: Vec<usize> = (from..tokens.len())
            .filter(|i| is_solid(&tokens[*i]))
            .collect();
        let found = solid.windows(5).find(|w| {
            let words = ["SYSTEM_TIME", "AS", "OF", "SAVEPOINT"];
            let spelled = w.iter().zip(words);
            spelled
                .into_iter()
                .all(|(i, word)| is_word(&tokens[*i].token, word))
        });
        let Some(&[_, _, _, savepoint, name]) = found else {
            return;
        };
        let Token::Word(word) = &tokens[name].token else {
            from = name;
            continue;
        };
        let folded = match word.quote_style {
            Some(_) => word.value.clone(),
            None => word.value.to_lowercase(),
        };
        let span = tokens[name].span;
        let call = [
            Token::make_word("tidegate_savepoint", None),
            Token::LParen,
            Token::SingleQuotedString(folded),
            Token::RParen,
        ];
        let call = call
            .into_iter()
            .map(|token| TokenWithSpan::new(token, span));
        tokens.splice(savepoint..=name, call);
        from = savepoint;
    }
}

/// Takes `[,] [NOT] DEFERRABLE` out of transaction modes. It only says whether a serializable read-only snapshot may wait
/// for a safe moment, which ours never have to.
fn drop_deferrable(tokens: &mut Vec<TokenWithSpan>) {
    while let Some(at) = tokens.iter().position(|t| is_word(&t.token, "DEFERRABLE")) {
        let mut from = at;
        let before = |from: usize| tokens[..from].iter().rposition(is_solid);
        if let Some(not) = before(from).filter(|i| is_word(&tokens[*i].token, "NOT")) {
            from = not;
        }
        if let Some(comma) = before(from).filter(|i| tokens[*i].token == Token::Comma) {
            from = comma;
        }
        tokens.drain(from..=at);
    }
}

/// `FETCH c` is `FETCH NEXT FROM c`, and `FETCH 10 c` is `FETCH 10 FROM c`.
fn spell_out_fetch(tokens: &mut Vec<TokenWithSpan>) {
    let solid: Vec<usize> = (0..tokens.len())
        .filter(|i| is_solid(&tokens[*i]))
        .collect();
    let spelled_out = solid
        .iter()
        .any(|i| is_word(&tokens[*i].token, "FROM") || is_word(&tokens[*i].token, "IN"));
    let (Some(&name), false, true) = (solid.last(), spelled_out, solid.len() > 1) else {
        return;
    };
    let word = |text: &str| TokenWithSpan::new(Token::make_keyword(text), tokens[name].span);
    let inserted = match solid.len() {
        2 => vec![word("NEXT"), word("FROM")],
        _ => vec![word("FROM")],
    };
    tokens.splice(name..name, inserted);
}
