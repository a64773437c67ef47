"""Makes the references that the tokenizer tests compare with, by the libraries that models are trained
with: `sentencepiece` and Hugging Face's `tokenizers`. Writes beside itself:

  tokenizers/<kind>.gguf   a small vocabulary, as a model file would hold it (no weights)
  tokenizers/<kind>.ids    a line a text: the first 4 bytes of the SHA-256 of its ids (u32, little endian)
  tokenizers/<kind>.json   a tokenizer.json, as a folder of Hugging Face has it, with its own .ids where it has no .gguf
  tokenizers/texts.json    10,000 hard texts

Run by `make references`; what is committed was made with the versions in requirements.txt.
"""

import hashlib
import json
import pathlib
import random
import struct
import tempfile

import gguf
import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).parent / "tokenizers"
TEXTS = 10_000
VOCABULARY = 1_600
PIECES = 1_400

WORDS = """the of and to in a is that for it as was with be by on not he his but at are this have from
or had an they which one you were all her she there would their we him been has when who will no more
if out so up said what its about than into them can only other time new some could these two may then
honey hive comb wax swarm queen worker drone pollen nectar meadow clover linden heather bloom petal
worker worker's can't won't it's I'm you're we've they'll she'd DON'T I'LL
function return struct import while break class const static void int string null true false self
Blume Wiese Königin Arbeiterin Straße Grüße übrig schön fließen Äpfel größer
abeille reine ruche miel fleur été garçon où déjà naïve cœur
abeja miel reina flor año señor corazón niño
пчела мёд улей королева цветок рабочий луг
蜂 蜜 花 女王 巣 働く 草原 今日 は 天気 が いい です ね 世界 你好 谢谢 蜜蜂
꿀벌 여왕 꽃 초원
نحلة عسل ملكة زهرة
मधुमक्खी शहद रानी फूल
ผึ้ง น้ำผึ้ง ราชินี
μέλισσα μέλι βασίλισσα""".split()

REGEX = {
    "gpt-2": [r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"],
    "llama-bpe": [
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ],
    "qwen2": [
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ],
    "tekken": [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}|"
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ],
}
CLITICS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
REGEX["gpt-4o"] = [
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + CLITICS +
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + CLITICS +
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
]
REGEX["dbrx"] = REGEX["llama-bpe"]


def corpus(seed, lines):
    draw = random.Random(seed)
    for _ in range(lines):
        words = draw.choices(WORDS, k=draw.randint(3, 14))
        if draw.random() < 0.3:
            words.insert(draw.randrange(len(words)), str(draw.randrange(100_000)))
        line = draw.choice([" ", " ", " ", "  "]).join(words)
        yield line + draw.choice([".", "!", "?", "", " {", "();", ":"])


def character(draw):
    ranges = [
        (0x20, 0x7E), (0x20, 0x7E), (0x61, 0x7A), (0xA0, 0x24F), (0x370, 0x3FF), (0x400, 0x4FF),
        (0x5D0, 0x5EA), (0x620, 0x64A), (0x900, 0x97F), (0xE01, 0xE5B), (0x1100, 0x11FF),
        (0x3041, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x300, 0x36F), (0x2000, 0x206F),
        (0x2150, 0x218B), (0x1F300, 0x1FAFF), (0x20000, 0x2A6DF), (0x0, 0x1F), (0x7F, 0x9F),
        (0xFE00, 0xFE0F), (0xE000, 0xE0FF), (0xFF00, 0xFFEF), (0x1D400, 0x1D7FF),
    ]
    low, high = draw.choice(ranges)
    return chr(draw.randint(low, high))


def hard_text(draw, line):
    kind = draw.randrange(10)
    if kind == 0:
        return line
    if kind == 1:
        return "".join(character(draw) for _ in range(draw.randint(0, 24)))
    if kind == 2:
        blanks = [" ", "  ", "\n", "\n\n", "\t", "\r\n", "\r", "\u00a0", "\u3000", "\u2003", "    "]
        return "".join(draw.choice(WORDS) + draw.choice(blanks) * draw.randint(1, 3) for _ in range(6))
    if kind == 3:
        return draw.choice([" ", ".", "a", "0", "é", "蜂", "🐝", "\n", "_", "=", "▁"]) * draw.randint(1, 70)
    if kind == 4:
        marks = ["<s>", "</s>", "<unk>", "<0x0A>", "<|im_start|>", "<|endoftext|>", "[INST]", "▁", "Ġ", "Ċ"]
        return " ".join(draw.choice(marks + WORDS) for _ in range(5))
    if kind == 5:
        people = ["👩\u200d🚀", "🏳️\u200d🌈", "👨\u200d👩\u200d👧", "🇩🇪", "👍🏽", "🐝", "e\u0301", "n\u0303", "가", "각"]
        return "".join(draw.choice(people + [" ", "ok"]) for _ in range(draw.randint(1, 12)))
    if kind == 6:
        number = draw.choice(["{}", "-{}", "{}.5", "0x{:x}", "{:,}", "v{}.1"])
        return " ".join(number.format(draw.randrange(10**draw.randint(1, 15))) for _ in range(4))
    if kind == 7:
        return "".join(c.upper() if draw.random() < 0.5 else c for c in line) + draw.choice("'\"`") + "S"
    if kind == 8:
        code = ["fn x() {", "\n    ", "return a[i] += 1;", "// ", "/* */", "\n\n", "if (a != b) {", "}\n", "::<>", "'re"]
        return "".join(draw.choice(code) for _ in range(draw.randint(1, 8)))
    cut = draw.randrange(len(line) + 1)
    return line[:cut] + "".join(character(draw) for _ in range(3)) + line[cut:]


def texts():
    draw, lines = random.Random(11), list(corpus(12, TEXTS))
    return [hard_text(draw, line) for line in lines]


def write(kind, model, add, encode, all_texts):
    writer = gguf.GGUFWriter(HERE / f"{kind}.gguf", "llama")
    writer.add_string("tokenizer.ggml.model", model)
    add(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with open(HERE / f"{kind}.ids", "w") as file:
        for text in all_texts:
            ids = encode(text)
            digest = hashlib.sha256(struct.pack(f"<{len(ids)}I", *ids)).hexdigest()
            file.write(digest[:8] + "\n")


def byte_level(kind, all_texts):
    regex = REGEX.get(kind)
    if kind == "smollm":
        cuts = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    else:
        cuts = [pre_tokenizers.Split(Regex(r), "isolated", invert=False) for r in regex]
        cuts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    if kind == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus(1, 6_000), trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    ignore = kind in ("llama-bpe", "tekken")
    merges = [tuple(merge) for merge in learned["merges"]]
    tokenizer.model = models.BPE(vocab=learned["vocab"], merges=merges, ignore_merges=ignore)
    tokens = sorted(learned["vocab"], key=learned["vocab"].get)
    if kind in ("smollm", "qwen2", "llama-bpe"):
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.save(str(HERE / f"{kind}.json"))

    def add(writer):
        writer.add_string("tokenizer.ggml.pre", kind)
        writer.add_token_list(tokens)
        writer.add_token_types([1] * len(tokens))
        writer.add_token_merges([" ".join(merge) for merge in merges])

    write(kind, "gpt2", add, lambda text: tokenizer.encode(text).ids, all_texts)


def piece(kind, all_texts):
    with tempfile.TemporaryDirectory() as folder:
        prefix = f"{folder}/model"
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=corpus(2, 6_000), model_prefix=prefix, model_type=kind,
            vocab_size=PIECES, byte_fallback=True, normalization_rule_name="identity",
            remove_extra_whitespaces=False, character_coverage=0.9995, num_threads=1, hard_vocab_limit=kind == "bpe",
            split_digits=True, allow_whitespace_only_pieces=True, minloglevel=2,
        )
        model = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
    ids = range(model.vocab_size())
    kinds = [
        gguf.TokenType.UNKNOWN if model.is_unknown(i) else gguf.TokenType.CONTROL if model.is_control(i)
        else gguf.TokenType.UNUSED if model.is_unused(i) else gguf.TokenType.BYTE if model.is_byte(i)
        else gguf.TokenType.NORMAL
        for i in ids
    ]

    def add(writer):
        writer.add_token_list([model.id_to_piece(i) for i in ids])
        writer.add_token_scores([model.get_score(i) for i in ids])
        writer.add_token_types(kinds)
        writer.add_bos_token_id(model.bos_id())
        writer.add_eos_token_id(model.eos_id())

    write(f"sentencepiece-{kind}", {"bpe": "llama", "unigram": "t5"}[kind], add, model.encode, all_texts)


def published(kind, all_texts):
    """BPE over text whose spaces are written ▁, in the two ways in which models put it."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    if kind == "metaspace":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    specials = ["<pad>", "<s>", "</s>", "<unk>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=specials, show_progress=False, max_token_length=12)
    words = (line for line in corpus(3, 6_000)) if kind == "gemma" else (w for line in corpus(3, 6_000) for w in line.split())
    tokenizer.train_from_iterator(words, trainer)
    learned = json.loads(tokenizer.to_str())
    # Bytes are tokens of the model, not found in texts; a few added ones are, before and after others.
    learned["added_tokens"] = [token for token in learned["added_tokens"] if not token["content"].startswith("<0x")]
    vocabulary = learned["model"]["vocab"]
    for content, special in (("<|end|>", True), ("▁▁▁", False), ("queen", False)):
        vocabulary.setdefault(content, len(vocabulary))
        learned["added_tokens"].append(dict(
            id=vocabulary[content], content=content, single_word=False, lstrip=False, rstrip=special,
            normalized=False, special=special))
    learned["added_tokens"].sort(key=lambda token: token["id"])
    processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", vocabulary["<s>"])])
    tokenizer = Tokenizer.from_str(json.dumps(learned))
    tokenizer.post_processor = processor
    tokenizer.save(str(HERE / f"{kind}.json"))
    tokenizer.encode_special_tokens = True
    with open(HERE / f"{kind}.ids", "w") as file:
        for text in all_texts:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            file.write(hashlib.sha256(struct.pack(f"<{len(ids)}I", *ids)).hexdigest()[:8] + "\n")


def main():
    HERE.mkdir(exist_ok=True)
    all_texts = texts()
    (HERE / "texts.json").write_text(json.dumps(all_texts, ensure_ascii=False, indent=0) + "\n")
    for kind in ["smollm", *REGEX]:
        byte_level(kind, all_texts)
    for kind in ["bpe", "unigram"]:
        piece(kind, all_texts)
    for kind in ["metaspace", "gemma"]:
        published(kind, all_texts)


if __name__ == "__main__":
    main()
