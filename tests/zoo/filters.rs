//! Hostile filters, built instruction by instruction. A tame one is the model; each animal differs from it
//! in one thing. See README.md for what each tries.

use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, DataSection, EntityType, ExportKind, ExportSection,
    Function, FunctionSection, GlobalSection, GlobalType, ImportSection, InstructionSink, MemArg,
    MemorySection, MemoryType, Module, RefType, StartSection, TableSection, TableType, TypeSection,
    ValType,
};
use wit_parser::{Resolve, SizeAlign, Type, TypeDefKind, TypeId};

/// What an animal does in one of its functions.
type Body = fn(&mut InstructionSink<'_>, &Layout);

/// One hostile filter, and what has to be said of it.
pub struct Animal {
    /// What it tries.
    pub name: &'static str,
    /// Its file.
    pub bytes: Vec<u8>,
    /// What the refusal or the failure has to say.
    pub verdict: &'static str,
}

/// Where the parts of a narration lie in memory, from the pointer that `narrate` is given.
pub struct Layout {
    narration: u32,
    target: u32,
    human: u32,
}

/// The parts of a filter.
pub struct Parts {
    memory: MemoryType,
    memories: u32,
    table: TableType,
    realloc: Body,
    describe: Body,
    configure: Body,
    narrate: Body,
    after: Body,
    start: Option<Body>,
    text: Option<(Body, Body)>,
    kinds: [u32; 3],
    /// Where the data lies that `describe` returns.
    described: i32,
}

const LOG: u32 = 0;
const REALLOC: u32 = 1;
const HEAP: u32 = 0;
const CALLS: u32 = 1;
/// Bytes that are never given away: descriptions, answers, scratch.
const BASE: i32 = 8_192;
const DESCRIBED: i32 = 1_024;
const OK: i32 = 1_536;
const SCRATCH: i32 = 1_600;
const NAME: u32 = 2_000;

const fn at(offset: u32) -> MemArg {
    MemArg { offset: offset as u64, align: 0, memory_index: 0 }
}

fn spin(f: &mut InstructionSink<'_>, _: &Layout) {
    f.loop_(BlockType::Empty).br(0).end().unreachable();
}

fn trap(f: &mut InstructionSink<'_>, _: &Layout) {
    f.unreachable();
}

fn pass(f: &mut InstructionSink<'_>, layout: &Layout) {
    f.local_get(0).i32_const(layout.narration as i32).i32_add();
}

/// Puts a text of so many bytes at `address` into the narration's `human`.
fn say(f: &mut InstructionSink<'_>, layout: &Layout, address: i32, bytes: i32) {
    f.local_get(0).i32_const(address).i32_store(at(layout.human));
    f.local_get(0).i32_const(bytes).i32_store(at(layout.human + 4));
    pass(f, layout);
}

fn bump(f: &mut InstructionSink<'_>, _: &Layout) {
    f.global_get(HEAP).local_get(2).i32_add().i32_const(1).i32_sub();
    f.i32_const(0).local_get(2).i32_sub().i32_and().local_tee(4);
    f.local_get(3).i32_add().global_set(HEAP);
    f.local_get(4);
}

impl Parts {
    /// A filter that lets everything pass.
    pub fn tame() -> Self {
        let memory = MemoryType {
            minimum: 4,
            maximum: None,
            memory64: false,
            shared: false,
            page_size_log2: None,
        };
        let table = TableType {
            element_type: RefType::FUNCREF,
            table64: false,
            minimum: 2,
            maximum: None,
            shared: false,
        };
        Parts {
            memory,
            memories: 1,
            table,
            realloc: bump,
            describe: |f, _| {
                f.i32_const(DESCRIBED);
            },
            configure: |f, _| {
                f.i32_const(OK);
            },
            narrate: pass,
            after: |f, _| {
                f.i32_const(BASE).global_set(HEAP);
            },
            start: None,
            text: None,
            kinds: [0; 3],
            described: DESCRIBED,
        }
    }

    /// The core module, with its contract inside.
    pub fn build(&self) -> Vec<u8> {
        let mut resolve = Resolve::default();
        let wit = concat!(env!("CARGO_MANIFEST_DIR"), "/wit/0.1.0");
        let (package, _) = resolve.push_dir(wit).expect("the contract is sound");
        let world = if self.text.is_some() { "text-filter" } else { "narration-filter" };
        let world = resolve.select_world(&[package], Some(world)).expect("it has that world");
        let mut module = self.module(&Layout::of(&resolve));
        let utf8 = wit_component::StringEncoding::UTF8;
        wit_component::embed_component_metadata(&mut module, &resolve, world, utf8)
            .expect("the contract can be embedded");
        module
    }

    fn module(&self, layout: &Layout) -> Vec<u8> {
        let i32s = |count| std::iter::repeat_n(ValType::I32, count);
        let mut types = TypeSection::new();
        types.ty().function(i32s(3), []); // 0: log
        types.ty().function(i32s(4), i32s(1)); // 1: realloc
        types.ty().function([], i32s(1)); // 2: describe, finish
        types.ty().function(i32s(2), i32s(1)); // 3: configure, push
        types.ty().function(i32s(1), i32s(1)); // 4: narrate
        types.ty().function(i32s(1), []); // 5: after narrate
        types.ty().function([], []); // 6: start
        let mut imports = ImportSection::new();
        imports.import("rbees:narration/log@0.1.0", "write", EntityType::Function(0));
        let (mut functions, mut code) = (FunctionSection::new(), CodeSection::new());
        let mut define = |ty: u32, body: Body| {
            functions.function(ty);
            let mut function = Function::new([(2, ValType::I32)]);
            let mut sink = function.instructions();
            body(&mut sink, layout);
            sink.end();
            code.function(&function);
        };
        define(1, self.realloc);
        define(2, self.describe);
        define(3, self.configure);
        define(4, self.narrate);
        define(5, self.after);
        let none: Body = |_, _| {};
        define(6, self.start.unwrap_or(none));
        let filter = "rbees:narration/filter@0.1.0#";
        let mut exports = ExportSection::new();
        exports.export("memory", ExportKind::Memory, 0);
        exports.export("cabi_realloc", ExportKind::Func, REALLOC);
        for (name, function) in [("describe", 2), ("configure", 3), ("narrate", 4)] {
            exports.export(&format!("{filter}{name}"), ExportKind::Func, function);
        }
        exports.export(&format!("cabi_post_{filter}narrate"), ExportKind::Func, 5);
        if let Some((push, finish)) = self.text {
            define(3, push);
            define(2, finish);
            let text = "rbees:narration/text@0.1.0#";
            exports.export(&format!("{text}push"), ExportKind::Func, 7);
            exports.export(&format!("{text}finish"), ExportKind::Func, 8);
        }
        let mut memories = MemorySection::new();
        for _ in 0..self.memories {
            memories.memory(self.memory);
        }
        let mut tables = TableSection::new();
        tables.table(self.table);
        let mut globals = GlobalSection::new();
        let ty = GlobalType { val_type: ValType::I32, mutable: true, shared: false };
        globals.global(ty, &ConstExpr::i32_const(BASE));
        globals.global(ty, &ConstExpr::i32_const(0));
        let [kinds, list, length] = self.kinds;
        let words: [u32; 10] = [NAME, 3, NAME, 3, kinds, list, length, 0, NAME, 3];
        let described: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut data = DataSection::new();
        data.active(0, &ConstExpr::i32_const(self.described), described);
        data.active(0, &ConstExpr::i32_const(NAME as i32), *b"zoo\xff\xfe[");
        let mut module = Module::new();
        module.section(&types).section(&imports).section(&functions).section(&tables);
        module.section(&memories).section(&globals).section(&exports);
        if self.start.is_some() {
            module.section(&StartSection { function_index: 6 });
        }
        module.section(&code).section(&data);
        module.finish()
    }
}

impl Layout {
    /// Computed from the contract, as the canonical ABI lays it out.
    fn of(resolve: &Resolve) -> Self {
        let mut sizes = SizeAlign::default();
        sizes.fill(resolve);
        let id = |name: &str| -> TypeId {
            let mut all = resolve.types.iter();
            let found = all.find(|(_, ty)| {
                ty.name.as_deref() == Some(name) && matches!(ty.kind, TypeDefKind::Record(_))
            });
            found.expect("the contract has it").0
        };
        let (context, narration) = (Type::Id(id("context")), Type::Id(id("narration")));
        let offsets = sizes.field_offsets([&context, &narration]);
        let base = offsets[1].0.size_wasm32() as u32;
        let TypeDefKind::Record(record) = &resolve.types[id("narration")].kind else {
            unreachable!("it was looked for as one");
        };
        let fields: Vec<u32> = sizes
            .field_offsets(record.fields.iter().map(|field| &field.ty))
            .iter()
            .map(|(offset, _)| base + offset.size_wasm32() as u32)
            .collect();
        Layout { narration: base, target: fields[1], human: fields[3] }
    }
}

/// A filter that puts into each narration the target of the one before: what it saw of others shows.
pub fn hoarder() -> Vec<u8> {
    let narrate: Body = |f, layout| {
        f.local_get(0).i32_load(at(layout.target)).local_set(1);
        f.local_get(0).i32_load(at(layout.target + 4)).local_set(2);
        f.i32_const(SCRATCH).i32_load(at(0)).if_(BlockType::Empty);
        f.local_get(0).i32_const(SCRATCH).i32_load(at(0)).i32_store(at(layout.human));
        f.local_get(0).i32_const(SCRATCH).i32_load(at(4)).i32_store(at(layout.human + 4));
        f.end();
        f.i32_const(SCRATCH).local_get(1).i32_store(at(0));
        f.i32_const(SCRATCH).local_get(2).i32_store(at(4));
        pass(f, layout);
    };
    // It gives nothing back, and starts over before its memory is full.
    let after: Body = |f, _| {
        f.global_get(HEAP).i32_const(200_000).i32_gt_u().if_(BlockType::Empty);
        f.i32_const(BASE).global_set(HEAP).i32_const(SCRATCH).i32_const(0).i32_store(at(0)).end();
    };
    Parts { narrate, after, ..Parts::tame() }.build()
}

/// A filter whose every third call traps.
pub fn fails_every_third() -> Vec<u8> {
    let narrate: Body = |f, layout| {
        f.global_get(CALLS).i32_const(1).i32_add().global_set(CALLS);
        f.global_get(CALLS).i32_const(3).i32_rem_u().i32_eqz().if_(BlockType::Empty);
        f.unreachable().end();
        pass(f, layout);
    };
    Parts { narrate, ..Parts::tame() }.build()
}

/// A filter that spins whenever it is called.
pub fn spins() -> Vec<u8> {
    Parts { narrate: spin, ..Parts::tame() }.build()
}

/// Filters of generated text: what each does, and what has to be said of it.
pub fn text_animals() -> Vec<Animal> {
    let empty: Body = |f, _| {
        f.i32_const(OK);
    };
    let giant: Body = |f, _| {
        f.i32_const(SCRATCH).i32_const(0).i32_store(at(0));
        f.i32_const(SCRATCH).i32_const(1 << 30).i32_store(at(4)).i32_const(SCRATCH);
    };
    // What was pushed lies where the heap began; it never grows over it.
    let held: Body = |f, _| {
        f.i32_const(BASE).global_set(HEAP).i32_const(OK);
    };
    let animal = |name, text, verdict| {
        let bytes = Parts { text: Some(text), ..Parts::tame() }.build();
        Animal { name, bytes, verdict }
    };
    vec![
        animal("traps on text", (trap, empty), "push trapped"),
        animal("spins on text", (spin, empty), "push took longer"),
        animal("returns a gigabyte of text", (giant, empty), "push failed"),
        animal("holds text for ever", (held, empty), "held back more than"),
    ]
}

/// All animals that narrate.
pub fn animals() -> Vec<Animal> {
    let mut zoo = Vec::new();
    let tame = Parts::tame;
    let mut keep = |name, verdict, parts: Parts| {
        zoo.push(Animal { name, bytes: parts.build(), verdict });
    };
    keep("spins in narrate", "narrate took longer", Parts { narrate: spin, ..tame() });
    keep("spins in describe", "describe took longer", Parts { describe: spin, ..tame() });
    keep("spins in configure", "configure took longer", Parts { configure: spin, ..tame() });
    keep("spins at start", "start took longer", Parts { start: Some(spin), ..tame() });
    keep("spins when memory is asked for", "took longer", Parts { realloc: spin, ..tame() });
    keep("spins after its return", "took longer", Parts { after: spin, ..tame() });
    keep(
        "recurses",
        "stack",
        Parts {
            realloc: |f, _| {
                f.local_get(0).local_get(1).local_get(2).local_get(3).call(REALLOC);
            },
            ..tame()
        },
    );
    keep(
        "grows page by page",
        "more than 32 MiB",
        Parts {
            narrate: |f, _| {
                f.loop_(BlockType::Empty)
                    .i32_const(1)
                    .memory_grow(0)
                    .drop()
                    .br(0)
                    .end()
                    .unreachable();
            },
            ..tame()
        },
    );
    keep(
        "grows to 4 GiB at once",
        "more than 32 MiB",
        Parts {
            narrate: |f, layout| {
                f.i32_const(65_000).memory_grow(0).drop();
                pass(f, layout);
            },
            ..tame()
        },
    );
    let memory = MemoryType { minimum: 65_536, ..tame().memory };
    keep("declares 4 GiB", "memory", Parts { memory, ..tame() });
    let table = TableType { minimum: 10_000_000, ..tame().table };
    keep("declares ten million table elements", "table", Parts { table, ..tame() });
    keep(
        "grows its table",
        "table",
        Parts {
            narrate: |f, layout| {
                f.ref_null(wasm_encoder::HeapType::FUNC).i32_const(1 << 24).table_grow(0).drop();
                pass(f, layout);
            },
            ..tame()
        },
    );
    keep("is unreachable", "narrate trapped", Parts { narrate: trap, ..tame() });
    keep(
        "divides by zero",
        "trapped: wasm trap: integer divide",
        Parts {
            narrate: |f, _| {
                f.i32_const(1).i32_const(0).i32_div_s();
            },
            ..tame()
        },
    );
    keep(
        "overflows a division",
        "overflow",
        Parts {
            narrate: |f, _| {
                f.i32_const(i32::MIN).i32_const(-1).i32_div_s();
            },
            ..tame()
        },
    );
    keep(
        "converts what is no number",
        "conversion",
        Parts {
            narrate: |f, _| {
                f.f32_const(f32::NAN.into()).i32_trunc_f32_s();
            },
            ..tame()
        },
    );
    keep(
        "loads out of bounds",
        "out of bounds",
        Parts {
            narrate: |f, _| {
                f.i32_const(-4).i32_load(at(0));
            },
            ..tame()
        },
    );
    keep(
        "stores out of bounds",
        "out of bounds",
        Parts {
            narrate: |f, layout| {
                f.i32_const(-4).i32_const(7).i32_store(at(0xffff));
                pass(f, layout);
            },
            ..tame()
        },
    );
    keep(
        "calls nothing",
        "uninitialized element",
        Parts {
            narrate: |f, _| {
                f.local_get(0).i32_const(0).call_indirect(0, 4);
            },
            ..tame()
        },
    );
    keep(
        "calls beyond its table",
        "undefined element",
        Parts {
            narrate: |f, _| {
                f.local_get(0).i32_const(99).call_indirect(0, 4);
            },
            ..tame()
        },
    );
    keep(
        "returns a gigabyte",
        "narrate failed",
        Parts { narrate: |f, layout| say(f, layout, 0, 1 << 30), ..tame() },
    );
    keep(
        "returns text out of bounds",
        "narrate failed",
        Parts { narrate: |f, layout| say(f, layout, -16, 64), ..tame() },
    );
    keep(
        "returns what is not UTF-8",
        "narrate failed",
        Parts { narrate: |f, layout| say(f, layout, NAME as i32 + 3, 2), ..tame() },
    );
    keep("wants a million kinds", "describe failed", Parts { kinds: [1, 0, 1_000_000], ..tame() });
    keep(
        "wants kinds out of bounds",
        "describe failed",
        Parts { kinds: [1, u32::MAX - 7, 1_000], ..tame() },
    );
    keep(
        "returns a pointer out of bounds",
        "narrate failed",
        Parts {
            narrate: |f, _| {
                f.i32_const(-8);
            },
            ..tame()
        },
    );
    keep(
        "returns a misaligned pointer",
        "narrate failed",
        Parts {
            narrate: |f, layout| {
                pass(f, layout);
                f.i32_const(3).i32_add();
            },
            ..tame()
        },
    );
    keep(
        "returns a case that does not exist",
        "narrate failed",
        Parts {
            narrate: |f, layout| {
                f.local_get(0).i32_const(200).i32_store8(at(layout.narration));
                pass(f, layout);
            },
            ..tame()
        },
    );
    keep(
        "changes the kind",
        "may not change the kind",
        Parts {
            narrate: |f, layout| {
                // The second kind has a number and a text, which every payload can be read as.
                f.local_get(0).i32_const(1).i32_store8(at(layout.narration));
                f.local_get(0).i32_const(0).i32_store(at(layout.narration + 12));
                f.local_get(0).i32_const(0).i32_store(at(layout.narration + 16));
                f.local_get(0).i32_load8_u(at(layout.narration)).drop();
                pass(f, layout);
            },
            ..tame()
        },
    );
    keep(
        "gives memory out of bounds",
        "failed",
        Parts {
            realloc: |f, _| {
                f.i32_const(-16);
            },
            ..tame()
        },
    );
    keep(
        "gives misaligned memory",
        "failed",
        Parts {
            realloc: |f, _| {
                f.i32_const(BASE + 1);
            },
            ..tame()
        },
    );
    keep(
        "poisons the next call",
        "trapped",
        Parts {
            narrate: |f, layout| {
                f.global_get(CALLS).if_(BlockType::Empty).unreachable().end();
                f.i32_const(1).global_set(CALLS);
                pass(f, layout);
            },
            ..tame()
        },
    );
    keep(
        "logs a gigabyte",
        "narrate failed",
        Parts {
            narrate: |f, layout| {
                f.i32_const(0).i32_const(0).i32_const(1 << 30).call(LOG);
                pass(f, layout);
            },
            ..tame()
        },
    );
    keep(
        "logs for ever",
        "took longer",
        Parts {
            narrate: |f, _| {
                f.loop_(BlockType::Empty);
                f.i32_const(0).i32_const(NAME as i32).i32_const(3).call(LOG);
                f.br(0).end().unreachable();
            },
            ..tame()
        },
    );
    keep("has two memories", "is ", Parts { memories: 2, ..tame() });
    let memory = MemoryType { memory64: true, ..tame().memory };
    keep("has 64-bit memory", "is ", Parts { memory, ..tame() });
    let memory = MemoryType { shared: true, maximum: Some(4), ..tame().memory };
    keep("shares its memory", "is ", Parts { memory, ..tame() });
    keep("has data out of bounds", "out of bounds", Parts { described: 1 << 30, ..tame() });
    zoo.extend(files());
    zoo
}

/// What is no filter at all.
fn files() -> Vec<Animal> {
    let sound = Parts::tame().build();
    let component = wit_component::ComponentEncoder::default()
        .module(&sound)
        .and_then(|mut encoder| encoder.encode())
        .expect("it carries its contract");
    let mut flipped = component.clone();
    let middle = flipped.len() / 2;
    flipped[middle..middle + 16].fill(0xff);
    let mut giant = b"\0asm\x01\0\0\0".to_vec();
    giant.extend([0, 0xf8, 0xff, 0xff, 0x63]); // a custom section of 200 MiB
    giant.resize(200 << 20, 0);
    let mut unknown = Module::new();
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let mut imports = ImportSection::new();
    imports.import("env", "system", EntityType::Function(0));
    unknown.section(&types).section(&imports);
    let animal = |name, verdict, bytes| Animal { name, bytes, verdict };
    vec![
        animal("is empty", "is no WebAssembly", Vec::new()),
        animal("is text", "is no WebAssembly", b"[[filter]]".to_vec()),
        animal("is precompiled", "is no WebAssembly", b"\x7fELF\x02\x01\x01\0".repeat(64)),
        animal("is of no world", "another world", b"\0asm\x0d\0\x01\0".to_vec()),
        animal("imports what there is not", "core module", unknown.finish()),
        animal("is cut", "is ", component[..component.len() - 9].to_vec()),
        animal("is half", "is ", sound[..sound.len() / 2].to_vec()),
        animal("has flipped bits", "is ", flipped),
        animal("has 200 MiB", "is ", giant),
    ]
}
