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
