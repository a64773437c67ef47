//! Writes the Rust types of the interfaces `facts` and `types` from the WIT, for `bindgen!` to take
//! by `with`. `bindgen!` can't put serde's names on what it makes, and the wire wants kebab-case.
//! Understands just the kinds of types that the contract uses; another is an error, not a guess.

use std::fmt::Write as _;
use std::path::Path;

use wit_parser::{Docs, Resolve, Type, TypeDef, TypeDefKind, TypeId, TypeOwner};

const DERIVES: &str = "#[derive(wasmtime::component::ComponentType, wasmtime::component::Lift, \
    wasmtime::component::Lower, Clone, Debug, PartialEq)]\n";
const ON_WIRE: &str = "    #[derive(serde::Serialize, serde::Deserialize, utoipa::ToSchema)]\n";

/// What `bindgen!` expects of a module given by `with`, for an interface without functions.
const NO_FUNCTIONS: &str = "    /// Nothing to provide: the interface has no functions.
    pub trait Host {}
    impl<T: ?Sized> Host for T {}
    /// Nothing to provide: the interface has no functions.
    pub trait HostWithStore<T>: wasmtime::component::HasData {}
    impl<T, D: wasmtime::component::HasData + ?Sized> HostWithStore<T> for D {}
    /// Nothing to link: the interface has no functions.
    pub fn add_to_linker<T: 'static, D: wasmtime::component::HasData>(
        _: &mut wasmtime::component::Linker<T>,
        _: fn(&mut T) -> D::Data<'_>,
    ) -> wasmtime::Result<()> {
        Ok(())
    }
";

/// Reads the package in `wit` and writes `OUT_DIR/vocabulary.rs`.
pub fn write(wit: &Path, out: &Path) -> Result<(), String> {
    println!("cargo::rerun-if-changed={}", wit.display());
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wit).map_err(|e| format!("{}: {e:#}", wit.display()))?;
    let mut code = String::new();
    for (name, id) in &resolve.packages[package].interfaces {
        let types: Vec<TypeId> = resolve.interfaces[*id].types.values().copied().collect();
        if types.iter().all(|id| is_alias(&resolve.types[*id])) {
            continue; // `log` and `filter` define no types of their own
        }
        docs(&mut code, &resolve.interfaces[*id].docs, "");
        let _ = writeln!(code, "pub mod {} {{", snake(name));
        for id in types {
            let shown = |rust: &str| match name.as_str() {
                // The contract over HTTP has names of its own beside these.
                "facts" if rust != "Fact" => format!("    #[schema(as = {rust}Fact)]\n"),
                _ => String::new(),
            };
            define(&mut code, &resolve, &resolve.types[id], &shown)?;
        }
        code.push_str(NO_FUNCTIONS);
        code.push_str("}\n");
    }
    let path = out.join("vocabulary.rs");
    std::fs::write(&path, code).map_err(|e| format!("{}: {e}", path.display()))
}

fn is_alias(def: &TypeDef) -> bool {
    matches!(def.kind, TypeDefKind::Type(_))
}

/// Writes one named type.
fn define(
    code: &mut String,
    resolve: &Resolve,
    def: &TypeDef,
    shown: &dyn Fn(&str) -> String,
) -> Result<(), String> {
    let Some(name) = &def.name else { return Ok(()) };
    let rust = camel(name);
    if !matches!(def.kind, TypeDefKind::Flags(_)) {
        docs(code, &def.docs, "    "); // the macro that makes flags takes no documentation
    }
    match &def.kind {
        TypeDefKind::Record(record) => {
            // A record with flags goes over the wire in pieces, if at all.
            let on_wire = record.fields.iter().all(|field| is_plain(resolve, &field.ty));
            let serde = if on_wire { ON_WIRE.to_owned() + &shown(&rust) } else { String::new() };
            let _ = write!(
                code,
                "    {DERIVES}{serde}    #[component(record)]\n    pub struct {rust} {{\n"
            );
            let (mut sample, mut strings) = (String::new(), String::new());
            let mut cases = String::new();
            for field in &record.fields {
                docs(code, &field.docs, "        ");
                let _ = writeln!(code, "        #[component(name = \"{}\")]", field.name);
                if on_wire && is_option(resolve, &field.ty) {
                    code.push_str(
                        "        #[serde(default, skip_serializing_if = \"Option::is_none\")]\n",
                    );
                }
                let ty = type_name(resolve, &field.ty)?;
                let _ = writeln!(code, "        pub {}: {ty},", snake(&field.name));
                let value = sample_of(resolve, &field.ty, &field.name);
                let _ = write!(sample, "{}: {value}, ", snake(&field.name));
                let place = format!("self.{}", snake(&field.name));
                texts_of(&mut strings, resolve, &field.ty, &place, true);
                if is_enum(resolve, &field.ty) {
                    let _ = writeln!(
                        cases,
                        "            cases.extend({ty}::ALL.iter().skip(1).map(|case| {{\n                \
                         let mut one = Self::sample();\n                one.{} = *case;\n                \
                         one\n            }}));",
                        snake(&field.name)
                    );
                }
            }
            code.push_str("    }\n");
            impl_sample(code, &rust, &format!("{rust} {{ {sample}}}"));
            impl_cases(code, &rust, &cases);
            let _ = write!(
                code,
                "    impl {rust} {{\n        /// Shows every text inside to `change`.\n        \
                 pub fn texts(&mut self, change: &mut dyn FnMut(&mut String)) {{\n            \
                 let _ = &change;\n{strings}        }}\n    }}\n"
            );
        }
        TypeDefKind::Enum(cases) => {
            let _ = write!(
                code,
                "    {DERIVES}{ON_WIRE}{}    #[derive(Copy, Eq, Hash)]\n    #[component(enum)]\n    \
                 #[serde(rename_all = \"kebab-case\")]\n    #[repr(u8)]\n    pub enum {rust} {{\n",
                shown(&rust)
            );
            for case in &cases.cases {
                docs(code, &case.docs, "        ");
                let case = &case.name;
                let _ = write!(
                    code,
                    "        #[component(name = \"{case}\")]\n        {},\n",
                    camel(case)
                );
            }
            code.push_str("    }\n");
            impl_sample(code, &rust, &format!("{rust}::{}", camel(&cases.cases[0].name)));
            let all: Vec<String> =
                cases.cases.iter().map(|case| format!("Self::{}", camel(&case.name))).collect();
            let _ = write!(
                code,
                "    impl {rust} {{\n        /// Every case, in the order of the contract.\n        \
                 pub const ALL: &[Self] = &[{}];\n    }}\n",
                all.join(", ")
            );
        }
        TypeDefKind::Variant(variant) => define_variant(code, resolve, &rust, variant)?,
        TypeDefKind::Flags(flags) => {
            let _ = writeln!(code, "    wasmtime::component::flags!({rust} {{");
            for flag in &flags.flags {
                let constant = snake(&flag.name).to_uppercase();
                let _ = writeln!(
                    code,
                    "        #[component(name = \"{}\")] const {constant};",
                    flag.name
                );
            }
            code.push_str("    });\n");
        }
        TypeDefKind::Type(Type::Id(id)) => {
            let _ = writeln!(code, "    pub use {};", path_of(resolve, *id)?);
        }
        other => return Err(format!("{name}: a {} is not provided for", other.as_str())),
    }
    Ok(())
}

/// Writes a variant, whose cases all carry a record, with its kinds by name and a sample of each.
fn define_variant(
    code: &mut String,
    resolve: &Resolve,
    rust: &str,
    variant: &wit_parser::Variant,
) -> Result<(), String> {
    let _ = write!(
        code,
        "    {DERIVES}{ON_WIRE}    #[component(variant)]\n    #[serde(rename_all = \"kebab-case\")]\n    \
         pub enum {rust} {{\n"
    );
    let (mut kinds, mut names, mut samples) = (String::new(), String::new(), String::new());
    let (mut texts, mut cases) = (String::new(), String::new());
    let mut places = String::new();
    for (place, case) in variant.cases.iter().enumerate() {
        let Some(ty) = &case.ty else {
            return Err(format!("{rust}.{}: every case carries a record", case.name));
        };
        let (kind, camel, ty) = (&case.name, camel(&case.name), type_name(resolve, ty)?);
        let _ = writeln!(code, "        /// See [`{ty}`].");
        let _ = writeln!(code, "        #[component(name = \"{kind}\")]\n        {camel}({ty}),");
        let _ = writeln!(kinds, "                {rust}::{camel}(_) => \"{kind}\",");
        let _ = writeln!(places, "                {rust}::{camel}(_) => {place},");
        let _ = write!(names, "\"{kind}\", ");
        let _ = writeln!(texts, "                {rust}::{camel}(fields) => fields.texts(change),");
        let _ = write!(samples, "{rust}::{camel}({ty}::sample()), ");
        let _ = writeln!(
            cases,
            "            cases.extend({ty}::cases().into_iter().map({rust}::{camel}));"
        );
    }
    let _ = write!(
        code,
        "    }}\n    impl {rust} {{\n        /// Every kind, in the order of the contract.\n        \
         pub const KINDS: &[&str] = &[{names}];\n        /// Its kind, as the contract names it.\n        \
         pub const fn kind(&self) -> &'static str {{\n            match self {{\n{kinds}            }}\n        \
         }}\n        /// Its kind's place in [`Self::KINDS`].\n        pub const fn place(&self) -> usize {{\n            \
         match self {{\n{places}            }}\n        }}\n        /// One of every kind, with made-up values, for trials.\n        \
         pub fn samples() -> Vec<{rust}> {{ vec![{samples}] }}\n        /// The first \
         of the samples.\n        pub fn sample() -> {rust} {{ Self::samples().swap_remove(0) }}\n        \
         /// Shows every text inside to `change`.\n        pub fn texts(&mut self, change: &mut dyn \
         FnMut(&mut String)) {{\n            match self {{\n{texts}            }}\n        }}\n    }}\n"
    );
    let _ = write!(
        code,
        "    impl {rust} {{\n        /// One of every kind, and one more for each further case of \
         an enum in it.\n        pub fn cases() -> Vec<{rust}> {{\n            \
         let mut cases = Vec::new();\n{cases}            cases\n        }}\n    }}\n"
    );
    Ok(())
}

/// Writes `cases`: a sample, and one more for each further case of an enum among the fields.
fn impl_cases(code: &mut String, rust: &str, cases: &str) {
    let keyword = if cases.is_empty() { "" } else { "mut " };
    let _ = write!(
        code,
        "    impl {rust} {{\n        /// A sample, and one more for each further case of an enum \
         in it.\n        pub fn cases() -> Vec<Self> {{\n            let {keyword}cases = \
         vec![Self::sample()];\n{cases}            cases\n        }}\n    }}\n"
    );
}

fn impl_sample(code: &mut String, rust: &str, value: &str) {
    let _ = write!(
        code,
        "    impl {rust} {{\n        /// One with made-up values, for trials.\n        \
         pub fn sample() -> Self {{ {value} }}\n    }}\n"
    );
}

/// An expression that makes a plausible value of the type; strings are named after their field.
fn sample_of(resolve: &Resolve, ty: &Type, field: &str) -> String {
    match ty {
        Type::Bool => "true".into(),
        Type::F64 => "12.5".into(),
        Type::String if field == "json" => "\"{}\".to_owned()".into(),
        Type::String => format!("\"{field}\".to_owned()"),
        Type::Id(id) => match &resolve.types[*id].kind {
            TypeDefKind::Option(inner) => format!("Some({})", sample_of(resolve, inner, field)),
            TypeDefKind::List(inner) => format!("vec![{}]", sample_of(resolve, inner, field)),
            TypeDefKind::Flags(_) => {
                format!("{}::all()", type_name(resolve, ty).unwrap_or_default())
            }
            _ => format!("{}::sample()", type_name(resolve, ty).unwrap_or_default()),
        },
        _ => "42".into(),
    }
}

/// Writes what shows the texts of one field, at `place`, to `change`.
fn texts_of(code: &mut String, resolve: &Resolve, ty: &Type, place: &str, owned: bool) {
    let borrowed = if owned { format!("&mut {place}") } else { place.to_owned() };
    match ty {
        Type::String => {
            let _ = writeln!(code, "            change({borrowed});");
        }
        Type::Id(id) => match &resolve.types[*id].kind {
            kind @ (TypeDefKind::Option(inner) | TypeDefKind::List(inner)) => {
                let mut each = String::new();
                texts_of(&mut each, resolve, inner, "each", false);
                let each_of = match kind {
                    TypeDefKind::Option(_) => format!("if let Some(each) = {borrowed}"),
                    _ => format!("for each in {borrowed}"),
                };
                if !each.is_empty() {
                    let _ = writeln!(code, "            {each_of} {{\n{each}            }}");
                }
            }
            TypeDefKind::Record(_) | TypeDefKind::Variant(_) => {
                let _ = writeln!(code, "            {place}.texts(change);");
            }
            TypeDefKind::Type(alias) => texts_of(code, resolve, alias, place, owned),
            _ => {}
        },
        _ => {}
    }
}

fn is_enum(resolve: &Resolve, ty: &Type) -> bool {
    matches!(ty, Type::Id(id) if matches!(resolve.types[*id].kind, TypeDefKind::Enum(_)))
}

fn is_option(resolve: &Resolve, ty: &Type) -> bool {
    matches!(ty, Type::Id(id) if matches!(resolve.types[*id].kind, TypeDefKind::Option(_)))
}

/// Whether the type has a wire form of its own: flags have none.
fn is_plain(resolve: &Resolve, ty: &Type) -> bool {
    !matches!(ty, Type::Id(id) if matches!(resolve.types[*id].kind, TypeDefKind::Flags(_)))
}

/// The Rust name of a type, as it is seen from within its own module.
fn type_name(resolve: &Resolve, ty: &Type) -> Result<String, String> {
    Ok(match ty {
        Type::Bool => "bool".into(),
        Type::U8 => "u8".into(),
        Type::U16 => "u16".into(),
        Type::U32 => "u32".into(),
        Type::U64 => "u64".into(),
        Type::F64 => "f64".into(),
        Type::String => "String".into(),
        Type::Id(id) => match (&resolve.types[*id].kind, &resolve.types[*id].name) {
            (_, Some(name)) => camel(name),
            (TypeDefKind::Option(inner), None) => format!("Option<{}>", type_name(resolve, inner)?),
            (TypeDefKind::List(inner), None) => format!("Vec<{}>", type_name(resolve, inner)?),
            (other, None) => return Err(format!("a {} is not provided for", other.as_str())),
        },
        other => return Err(format!("{other:?} is not provided for")),
    })
}

/// The path to a type of another interface.
fn path_of(resolve: &Resolve, id: TypeId) -> Result<String, String> {
    let def = &resolve.types[id];
    match (&def.owner, &def.name) {
        (TypeOwner::Interface(owner), Some(name)) => {
            let module = resolve.interfaces[*owner].name.as_deref().unwrap_or_default();
            Ok(format!("super::{}::{}", snake(module), camel(name)))
        }
        _ => Err("a type without a home is not provided for".into()),
    }
}

fn docs(code: &mut String, docs: &Docs, indent: &str) {
    for line in docs.contents.as_deref().unwrap_or("").trim().lines() {
        let _ = writeln!(code, "{indent}/// {line}");
    }
}

fn snake(kebab: &str) -> String {
    kebab.replace('-', "_")
}

fn camel(kebab: &str) -> String {
    kebab
        .split('-')
        .map(|word| {
            let mut chars = word.chars();
            chars
                .next()
                .map(|c| c.to_ascii_uppercase())
                .into_iter()
                .chain(chars)
                .collect::<String>()
        })
        .collect()
}
