//! Where each kernel stands against the machine: the shortest time of every call of a step, in the
//! shapes of a small llama (SmolLM2-135M) or of those given, with random weights. Prints a table;
//! asserts nothing. `cargo bench --bench kernels -- [threads] [weights] [step]`.

#![allow(clippy::print_stdout, missing_docs)] // printing is its purpose

use std::time::{Duration, Instant};

use rbees_kernel::{
    Activation, Arena, Attention, Floats, Input, Kernel, Kind, KvKind, KvPool, Matrix, Norm,
    Packer, Product, Rope, RopeStyle, Span,
};

const LAYERS: usize = 30;
const WIDTH: usize = 576;
const HEADS: usize = 9;
const KV_HEADS: usize = 3;
const DIM: usize = 64;
const FORWARD: usize = 1_536;
const VOCABULARY: usize = 49_152;
const BLOCK_TOKENS: usize = 32;
/// Steps of which the shortest call counts.
const STEPS: usize = 12;

/// Rows of a step, and tokens before them.
const CASES: [(&str, usize, usize, usize); 11] = [
    ("one sequence", 1, 1, 0),
    ("one sequence, depth 512", 1, 1, 511),
    ("one sequence, depth 2048", 1, 1, 2_047),
    ("2 sequences", 2, 1, 64),
    ("4 sequences", 4, 1, 64),
    ("8 sequences", 8, 1, 64),
    ("8 sequences, depth 512", 8, 1, 511),
    ("prompt of 32", 1, 32, 0),
    ("prompt of 128", 1, 128, 0),
    ("prompt of 128 after 1,920", 1, 128, 1_920),
    ("prompt of 512", 1, 512, 0),
];

struct Layer {
    qkv: [Matrix; 3],
    out: Matrix,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let threads = words.first().map_or(2, |word| word.parse().expect("a number of threads"));
    let kind = kind(words.get(1).map_or("Q4_1", String::as_str));
    let mut kernel = Kernel::new(threads);
    let (mut random, mut arena) = (Random(7), Arena::default());
    let layers: Vec<Layer> = (0..LAYERS).map(|_| layer(&mut arena, kind, &mut random)).collect();
    let head = matrix(&mut arena, Kind::Q8_0, VOCABULARY, WIDTH, &mut random);
    println!(
        "{kind:?}, {threads} threads, {}; ms for {LAYERS} layers, shortest calls",
        kernel.instruction_set()
    );
    println!("| step | q, k, v | attention | out | gate, up | down | head | sum | GMAC/s | GB/s |");
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    let wanted = words.get(2).map_or("", String::as_str);
    for (name, sequences, rows, depth) in CASES.into_iter().filter(|case| case.0.contains(wanted)) {
        let times = step(&mut kernel, &layers, &head, (sequences, rows, depth));
        let ms: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
        let products = ms[0] + ms[2] + ms[3] + ms[4];
        let per_row =
            (WIDTH * WIDTH * 2 + WIDTH * KV_HEADS * DIM * 2 + 3 * WIDTH * FORWARD) * LAYERS;
        let bytes: u64 = layers.iter().map(Layer::bytes).sum();
        let cells: Vec<String> = ms.iter().map(|ms| format!("{ms:.2}")).collect();
        println!(
            "| {name} | {} | {:.2} | {:.0} | {:.1} |",
            cells.join(" | "),
            ms.iter().sum::<f64>(),
            (per_row * sequences * rows) as f64 / products / 1e6,
            bytes as f64 / products / 1e6,
        );
    }
}

fn kind(name: &str) -> Kind {
    let found = Kind::ALL.into_iter().find(|kind| format!("{kind:?}") == name);
    found.unwrap_or_else(|| panic!("{name} is none of {:?}", Kind::ALL))
}

impl Layer {
    fn bytes(&self) -> u64 {
        let [q, k, v] = &self.qkv;
        [q, k, v, &self.out, &self.gate, &self.up, &self.down].map(Matrix::bytes).iter().sum()
    }
}

fn layer(arena: &mut Arena, kind: Kind, random: &mut Random) -> Layer {
    let mut of = |rows, columns| matrix(arena, kind, rows, columns, random);
    Layer {
        qkv: [of(WIDTH, WIDTH), of(KV_HEADS * DIM, WIDTH), of(KV_HEADS * DIM, WIDTH)],
        out: of(WIDTH, WIDTH),
        gate: of(FORWARD, WIDTH),
        up: of(FORWARD, WIDTH),
        down: of(WIDTH, FORWARD),
    }
}

/// The shortest time of each call, times the layers.
fn step(
    kernel: &mut Kernel,
    layers: &[Layer],
    head: &Matrix,
    (sequences, rows, depth): (usize, usize, usize),
) -> [Duration; 6] {
    let n = sequences * rows;
    let blocks = (depth + rows).div_ceil(BLOCK_TOKENS);
    let mut pool =
        KvPool::new(KvKind::F16, LAYERS, KV_HEADS, DIM, BLOCK_TOKENS, blocks * sequences)
            .expect("memory for keys and values");
    let lists: Vec<Vec<u32>> = (0..sequences)
        .map(|at| (at * blocks..(at + 1) * blocks).map(|block| block as u32).collect())
        .collect();
    let spans: Vec<Span<'_>> =
        lists.iter().map(|blocks| Span { position: depth, rows, blocks }).collect();
    let norm = vec![1.0_f32; WIDTH];
    let norm = Some(Norm { weight: &norm, epsilon: 1e-5 });
    let (cos, sin) = (vec![0.8; n * DIM / 2], vec![0.6; n * DIM / 2]);
    let x = rows_of(n * WIDTH, 0.5);
    let (mut q, mut y) = (rows_of(n * WIDTH, 0.0), rows_of(n * WIDTH, 0.0));
    let (mut k, mut v) = (rows_of(n * KV_HEADS * DIM, 0.0), rows_of(n * KV_HEADS * DIM, 0.0));
    let (mut gated, mut stream) = (rows_of(n * FORWARD, 0.0), rows_of(n * WIDTH, 0.5));
    let mut logits = vec![0.0; sequences * VOCABULARY];
    let mut least = [[Duration::MAX; LAYERS]; 6];
    let mut keep = |what: usize, layer: usize, began: Instant| {
        least[what][layer] = least[what][layer].min(began.elapsed());
    };
    for _ in 0..if n > 64 { STEPS / 3 } else { STEPS } {
        for (at, layer) in layers.iter().enumerate() {
            let [query, key, value] = &layer.qkv;
            let product = |matrix, y| Product { matrix, bias: None, y, add: false };
            let began = Instant::now();
            kernel.products(
                Input { x: &x, norm },
                &mut [product(query, &mut q), product(key, &mut k), product(value, &mut v)],
            );
            keep(0, at, began);
            let began = Instant::now();
            kernel.attention(Attention {
                layer: at,
                heads: HEADS,
                q: &mut q,
                k: &mut k,
                v: &v,
                q_norm: None,
                k_norm: None,
                rope: Some(Rope { cos: &cos, sin: &sin, pairs: DIM / 2, style: RopeStyle::Halves }),
                scale: 1e-9,
                window: None,
                soft_cap: None,
                pool: &mut pool,
                spans: &spans,
                y: &mut y,
            });
            keep(1, at, began);
            let began = Instant::now();
            let out = Product { matrix: &layer.out, bias: None, y: &mut stream, add: true };
            kernel.products(Input { x: &y, norm: None }, &mut [out]);
            keep(2, at, began);
            let began = Instant::now();
            kernel.gated(
                Input { x: &x, norm },
                &layer.gate,
                &layer.up,
                Activation::Silu,
                &mut gated,
            );
            keep(3, at, began);
            let began = Instant::now();
            let down = Product { matrix: &layer.down, bias: None, y: &mut stream, add: true };
            kernel.products(Input { x: &gated, norm: None }, &mut [down]);
            keep(4, at, began);
            stream.fill(0.5);
        }
        let began = Instant::now();
        let out = Product { matrix: head, bias: None, y: &mut logits, add: false };
        kernel.products(Input { x: &x[..sequences * WIDTH], norm }, &mut [out]);
        keep(5, 0, began);
    }
    std::array::from_fn(|what| {
        least[what].iter().filter(|time| **time < Duration::MAX).sum::<Duration>()
    })
}

fn rows_of(length: usize, value: f32) -> Floats {
    let mut floats = Floats::default();
    floats.resize(length);
    floats.fill(value);
    floats
}

/// Blocks of random codes with small scales.
fn matrix(
    arena: &mut Arena,
    kind: Kind,
    rows: usize,
    columns: usize,
    random: &mut Random,
) -> Matrix {
    let mut packer = Packer::new(arena, kind, rows, columns).expect("memory for weights");
    let mut bytes = vec![0_u8; kind.row_bytes(columns)];
    for _ in 0..rows {
        bytes.iter_mut().for_each(|byte| *byte = random.next() as u8 & 0x3b);
        packer.push(&bytes).expect("a row");
    }
    packer.finish().expect("all rows")
}

/// Numbers without pattern (xorshift), the same every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
