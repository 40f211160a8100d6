//! The Python and the Rust example of `docs/publish-in-a-transaction.md`, as they stand there, with the drivers that they are
//! written for: what they publish exists if and only if their transaction committed. The SQL ones are tested beside
//! the store.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod python;
mod rust;
mod shop;

/// The page.
const PAGE: &str = include_str!("../../../../docs/publish-in-a-transaction.md");

/// The page's only block of code in this language.
fn example(language: &str) -> &'static str {
    let fence = format!("\n```{language}\n");
    let mut blocks = PAGE.split(&fence).skip(1);
    let block = blocks.next().unwrap().split("\n```").next().unwrap();
    assert!(blocks.next().is_none(), "one example in {language}");
    block
}
