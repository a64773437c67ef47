//! The default model on a text of our own: what quantized products and 16-bit keys and values cost
//! against the same weights in full precision.

use super::build::{Linear, Parts};
use super::*;
use rbees_kernel::{Arena, Kind as Packing, Matrix, Packer};

/// Tokens that are looked at.
const TOKENS: usize = 512;
/// Tokens of one step.
const STEP: usize = 64;

fn default_model() -> Model {
    let path = "models/SmolLM2-135M-Instruct.Q4_1.gguf";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    Model::open(&path).expect("`make model` has fetched it")
}

/// The matrix of the numbers that this one's blocks stand for.
fn in_full(matrix: &Matrix) -> Matrix {
    let (rows, columns) = (matrix.rows(), matrix.columns());
    let mut packer =
        Packer::new(&mut Arena::default(), Packing::F32, rows, columns).expect("a matrix");
    let mut row = vec![0.0; columns];
    for at in 0..rows {
        matrix.row(at, &mut row);
        let bytes: Vec<u8> = row.iter().flat_map(|number| number.to_le_bytes()).collect();
        packer.push(&bytes).expect("a whole row");
    }
    packer.finish().expect("all rows")
}

fn full_precision(mut parts: Parts) -> Parts {
    let linear = |linear: &mut Linear| linear.matrix = in_full(&linear.matrix);
    parts.embedding = in_full(&parts.embedding);
    parts.head = parts.head.as_ref().map(in_full);
    for layer in &mut parts.layers {
        for part in [&mut layer.query, &mut layer.key, &mut layer.value, &mut layer.out] {
            linear(part);
        }
        linear(&mut layer.down);
        (layer.gate, layer.up) = (in_full(&layer.gate), in_full(&layer.up));
    }
    parts
}

/// How surprised the model is by each token after the first: the mean, as perplexity.
fn perplexity(model: &Model, parts: Parts, kv: KvKind, tokens: &[u32]) -> f64 {
    let budget = Budget { sequences: 1, kv_bytes: 1 << 28 };
    let means = Means { kv, threads: 2, budget };
    let mut decoder = Transformer::new(spec(model).clone(), parts, means).expect("room");
    let blocks: Vec<u32> = (0..tokens.len().div_ceil(KV_BLOCK_TOKENS) as u32).collect();
    let (mut logits, mut sum) = (Logits::default(), 0.0);
    for (at, inputs) in tokens[..tokens.len() - 1].chunks(STEP).enumerate() {
        let position = at * STEP;
        let chunk = Chunk { blocks: &blocks, position, tokens: inputs, logits: false };
        let rows = decoder.pass(&[chunk], true).expect("a step");
        decoder.head(rows, &mut logits);
        for (row, next) in logits.rows_mut().zip(&tokens[position + 1..]) {
            let most = row.iter().copied().fold(f32::MIN, f32::max);
            let total: f64 = row.iter().map(|logit| f64::from(logit - most).exp()).sum();
            sum += total.ln() - f64::from(row[*next as usize] - most);
        }
    }
    (sum / (tokens.len() - 1) as f64).exp()
}

#[test]
fn quantized_products_cost_the_default_model_next_to_nothing() {
    let text = include_str!("../../../../tests/references/prose.txt");
    let model = default_model();
    let (tokenizer, _) = model.language().expect("its tokenizer");
    let tokens = &tokenizer.encode(text).expect("tokens")[..TOKENS];
    if let Some(path) = std::env::var_os("RBEES_TOKENS") {
        // For `make perplexity`, which gives them to llama.cpp.
        let lines: Vec<String> = tokens.iter().map(u32::to_string).collect();
        std::fs::write(path, lines.join("\n")).expect("a place for the tokens");
    }
    let parts = || {
        let mut unheard = |_| {};
        let builder = Builder::new(&model.weights, Names::Gguf, spec(&model), &mut unheard);
        builder.parts().expect("sound weights")
    };
    let found = perplexity(&model, parts(), KvKind::F16, tokens);
    let expected = perplexity(&model, full_precision(parts()), KvKind::F32, tokens);
    let apart = found / expected - 1.0;
    eprintln!("perplexity {found:.4}, in full precision {expected:.4}: {:+.3} %", apart * 100.0);
    assert!(apart.abs() < 0.005, "perplexity {found}, in full precision {expected}");
    assert!(found < 40.0, "perplexity {found} of plain English: the model computes nonsense");
}
