//! Promise: docs/filters-reference.md says what the contract says. It is made from the WIT; this test
//! fails where it is not what would be made now, and makes it with `UPDATE=1`.

use std::fmt::Write as _;
use std::path::Path;

use wit_parser::{Docs, Resolve, Type, TypeDef, TypeDefKind};

const WIT: &str = "wit/0.1.0";
const PAGE: &str = "docs/filters-reference.md";

#[test]
fn the_reference_is_what_the_contract_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(root.join(WIT)).expect("the contract is sound");
    let made = page(&resolve, package);
    let path = root.join(PAGE);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &made).expect("the page can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == made, "{PAGE} is not what {WIT} says: run this test with UPDATE=1");
}

fn page(resolve: &Resolve, package: wit_parser::PackageId) -> String {
    let package = &resolve.packages[package];
    let mut page = format!(
        "# Reference of `{}`\n\nMade from `{WIT}` by `tests/suite/reference.rs`; change the contract, not this page. \
         [filters.md](filters.md) shows how to use it.\n",
        package.name
    );
    for name in ["filter", "text", "log", "types", "facts"] {
        let Some(id) = package.interfaces.get(name) else { continue };
        let interface = &resolve.interfaces[*id];
        let _ = write!(page, "\n## Interface `{name}`\n\n{}\n", text(&interface.docs));
        for function in interface.functions.values() {
            let parameters: Vec<String> = function
                .params
                .iter()
                .map(|param| format!("{}: {}", param.name, named(resolve, &param.ty)))
                .collect();
            let result = function
                .result
                .map_or_else(String::new, |ty| format!(" → {}", named(resolve, &ty)));
            let signature = format!("{}({}){result}", function.name, parameters.join(", "));
            let signature = signature.replace('`', "");
            let _ = write!(page, "\n### `{signature}`\n\n{}\n", text(&function.docs));
        }
        for ty in interface.types.values() {
            define(&mut page, resolve, &resolve.types[*ty]);
        }
    }
    page
}

/// One type, with a table of what it holds.
fn define(page: &mut String, resolve: &Resolve, def: &TypeDef) {
    let name = def.name.as_deref().unwrap_or_default();
    let (what, head, rows) = match &def.kind {
        TypeDefKind::Record(record) => {
            let row = |field: &wit_parser::Field| {
                (field.name.clone(), named(resolve, &field.ty), text(&field.docs))
            };
            ("record", "field | type", record.fields.iter().map(row).collect::<Vec<_>>())
        }
        TypeDefKind::Enum(cases) => {
            let row =
                |case: &wit_parser::EnumCase| (case.name.clone(), "".into(), text(&case.docs));
            ("enum", "case", cases.cases.iter().map(row).collect())
        }
        TypeDefKind::Flags(flags) => {
            let row = |flag: &wit_parser::Flag| (flag.name.clone(), "".into(), text(&flag.docs));
            ("flags", "flag", flags.flags.iter().map(row).collect())
        }
        TypeDefKind::Variant(variant) => {
            let row = |case: &wit_parser::Case| {
                let ty = case.ty.map_or_else(String::new, |ty| named(resolve, &ty));
                (case.name.clone(), ty, text(&case.docs))
            };
            ("variant", "kind | carries", variant.cases.iter().map(row).collect())
        }
        _ => return, // a name for a type of another interface
    };
    let _ = write!(page, "\n### {what} `{name}`\n\n{}\n\n", text(&def.docs));
    let typed = head.contains('|');
    let told = rows.iter().any(|(.., docs)| !docs.is_empty());
    let rule = "|---".repeat(1 + usize::from(typed) + usize::from(told));
    let _ = writeln!(page, "| {head} {}|\n{rule}|", if told { "| is " } else { "" });
    for (name, ty, docs) in rows {
        let ty = if typed { format!("| {ty} ") } else { String::new() };
        let docs = if told { format!("| {docs} ") } else { String::new() };
        let _ = writeln!(page, "| `{name}` {ty}{docs}|");
    }
}

/// A type as the contract writes it.
fn named(resolve: &Resolve, ty: &Type) -> String {
    match ty {
        Type::Id(id) => match (&resolve.types[*id].kind, &resolve.types[*id].name) {
            (_, Some(name)) => format!("`{name}`"),
            (TypeDefKind::Option(inner), None) => format!("option of {}", named(resolve, inner)),
            (TypeDefKind::List(inner), None) => format!("list of {}", named(resolve, inner)),
            (TypeDefKind::Result(result), None) => {
                let side = |ty: &Option<Type>| {
                    ty.as_ref().map_or_else(|| "nothing".to_owned(), |ty| named(resolve, ty))
                };
                format!("result of {} or {}", side(&result.ok), side(&result.err))
            }
            (other, None) => other.as_str().to_owned(),
        },
        Type::String => "string".to_owned(),
        Type::Bool => "bool".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// Documentation as one line of a table or a paragraph.
fn text(docs: &Docs) -> String {
    let text = docs.contents.as_deref().unwrap_or_default().trim();
    text.split("\n\n")
        .map(|part| part.replace('\n', " "))
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
}
