//! Templates as models have them, and templates made to hurt.

use std::time::{Duration, Instant};

mod references;

use super::*;

const CHATML: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + \
    message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}\
    {{ '<|im_start|>assistant\\n' }}{% endif %}";

/// The shape of Llama 3's, with a macro, slices, a namespace and a refusal.
const TURNS: &str = "\
{#- comment -#}
{%- macro turn(role, text, end='<|eot_id|>') -%}
    {{ '<|start|>' ~ role ~ '\\n\\n' ~ text|trim ~ end }}
{%- endmacro -%}
{%- if messages[0].role == 'system' -%}
    {%- set system = messages[0]['content'] %}
    {%- set turns = messages[1:] %}
{%- else -%}
    {%- set system = none %}
    {%- set turns = messages %}
{%- endif -%}
{{- bos_token }}
{%- set ns = namespace(last=none, seen=[]) %}
{%- if system is not none %}{{ turn('system', system) }}{% endif %}
{%- for m in turns %}
    {%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Roles must alternate user/assistant') }}
    {%- endif %}
    {%- set ns.last = m.role %}
    {%- set ns.seen = ns.seen + [m.role] %}
    {{- turn(m.role, m.content, end='<|end|>') }}
{%- endfor %}
{%- generation %}{{ ns.last }} {{ ns.seen|join(',') }} {{ ns.seen|length }}{% endgeneration -%}
";

fn message(role: &str, content: &str) -> Message {
    Message { role: role.to_owned(), content: content.to_owned() }
}

fn chat() -> Vec<Message> {
    vec![message("user", "Hi <b>\n"), message("assistant", "Hello {{ x }}"), message("user", "?")]
}

fn rendered(source: &str) -> Result<String> {
    ChatTemplate::new(source, "<s>", "</s>")?.render(&chat())
}

fn check(source: &str, expected: &str) {
    match rendered(source) {
        Ok(text) => assert_eq!(text, expected, "{source}"),
        Err(error) => panic!("{source}: {error}"),
    }
}

fn check_error(source: &str, kind: Kind, expected: &str) {
    let start = Instant::now();
    let error = rendered(source).map(|_| ()).expect_err(expected);
    let text = error.to_string();
    assert!(text.contains(expected), "expected '{expected}' in '{text}'");
    assert_eq!(error.kind(), kind, "{text}");
    assert!(!text.contains("Hello"), "a message leaked: {text}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn templates_of_models_render_as_in_transformers() {
    check(
        CHATML,
        "<|im_start|>user\nHi <b>\n<|im_end|>\n<|im_start|>assistant\nHello {{ x }}<|im_end|>\n\
         <|im_start|>user\n?<|im_end|>\n<|im_start|>assistant\n",
    );
    check(
        TURNS,
        "<s><|start|>user\n\nHi <b><|end|><|start|>assistant\n\nHello {{ x }}<|end|>\
         <|start|>user\n\n?<|end|>user user,assistant,user 3",
    );
}

#[test]
fn what_templates_use_works() {
    for (source, expected) in [
        ("a\n{% if true %}\n  b\n  {% endif %}\nc\n", "a\n  b\nc"),
        (
            "{{ messages|length }}{{ messages[-1]['content'] }}{{ messages[0].get('x', 'd') }}",
            "3?d",
        ),
        (
            "{{ {'b': [1, 2.5, none, true], 'a': '<é\"'} | tojson }}",
            r#"{"a": "<é\"", "b": [1, 2.5, null, true]}"#,
        ),
        ("{{ [1, {}]|tojson(indent=2) }}", "[\n  1,\n  {}\n]"),
        (
            "{{ '  x '.strip() ~ 'a,b'.split(',')[1] ~ 'abc'.replace('b', '--') ~ 'x'.upper() }}",
            "xba--cX",
        ),
        (
            "{{ messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|list|length }}",
            "2",
        ),
        ("{{ 'yes' if messages[0].role in ['user', 'tool'] else 'no' }}", "yes"),
        ("{{ 'yes' if 1 is in [1, 2] and not (2 is in [1]) else 'no' }}", "yes"),
        ("{{ (1, 2)[1] }}{{ [[1], [2]][1][0] }}{{ {'a': {'b': 3}}.a.b }}", "223"),
        ("{% set x %}in{% endset %}{{ x }}{% set a, b = 1, 2 %}{{ b }}", "in2"),
        (
            "{% set (a, b) = (1, 2) %}{{ a }}{% for (k, v) in {'x': 1}.items() %}{{ k }}{{ v }}{% endfor %}",
            "1x1",
        ),
        (
            "{% for m in messages if m.role == 'user' %}{{ loop.index }}{% else %}none{% endfor %}",
            "12",
        ),
        ("{% for i in range(5) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}", "012"),
        (
            "{{ tools is none }}{{ tools is defined }}{{ missing is defined }}{{ missing }}",
            "TrueTrueFalse",
        ),
        ("{%- if not tools %}{%+ set x = 1 +%} {{ x }}{% endif %}", " 1"),
        ("{{ 'it''s' }}{{ \"a\\\"}}b\" }}{{ '{% raw' }}", "itsa\"}}b{% raw"),
        ("{{ strftime_now('%Y')|length }}{{ [3, 1, 2]|sort|first }}{{ 7 // 2 - 1 }}", "412"),
        (
            "{% macro f(a, b=[1]) %}{{ a }}{{ b[0] }}{{ c }}{% endmacro %}{{ f('x') }}{{ f(b=[2], a='y') }}",
            "x1y2",
        ),
        ("{{ bos_token }}{{ eos_token }}{{ add_generation_prompt }}{{ {{}} }}", ""),
    ] {
        match expected {
            "" => assert!(rendered(source).is_err(), "{source}"),
            _ => check(source, expected),
        }
    }
}

#[test]
fn a_refusal_is_the_requests_and_repeats_no_message() {
    let fixed = "{{ raise_exception('Only \\x07user please') }}";
    check_error(fixed, Kind::Request, "refuses this conversation");
    check_error("{{ raise_exception('Only users') }}", Kind::Request, "conversation: Only users");
    let leaking = "{{ raise_exception(messages[1].content) }}";
    check_error(leaking, Kind::Request, "it gives no fixed reason");
    check_error("{{ messages[1].content.x.y }}", Kind::Model, "undefined value in line 1");
    check_error("{{ messages[1].content|round }}", Kind::Model, "in line 1");
}

#[test]
fn what_has_no_bound_is_refused_before_it_is_parsed() {
    let deep = |open: &str, close: &str, count: usize| {
        format!("{{{{ {}1{} }}}}", open.repeat(count), close.repeat(count))
    };
    for (source, expected) in [
        ("x".repeat(TEMPLATE_BYTES_MAX + 1), "expected at most 65536 bytes, found 65537"),
        (deep("(", ")", 100), "brackets nest deeper than 64"),
        (deep("[", "]", 100), "brackets nest deeper than 64"),
        (deep("not ", "", 900), "in a row"),
        (deep("-", "", 900), "in a row"),
        (deep("- ", "", 30_000), "more than 1024 words"),
        (deep("", "|abs", 10_000), "more than 1024 words"),
        (deep("", ".a", 10_000), "more than 1024 words"),
        (deep("", " if 1 else 1", 5_000), "more than 1024 words"),
        (deep("", "+1", 100), "more than 64 additions"),
        ("{% if 1 %}".repeat(100), "blocks nest deeper than 64"),
        (format!("{{% if 1 %}}{}{{% endif %}}", "{% elif 1 %}".repeat(100)), "blocks nest deeper"),
        ("\n{{ 2 ** 9 }}".to_owned(), "line 2: multiplication isn't supported"),
        ("{{ [1] * 9 }}".to_owned(), "multiplication isn't supported"),
        ("{{ f(*[1]) }}".to_owned(), "multiplication isn't supported"),
        ("{% with a = [1] %}{% endwith %}".to_owned(), "the statement 'with' isn't supported"),
        ("{% include 'x' %}".to_owned(), "the statement 'include' isn't supported"),
        ("{% raw %}{{ x }}{% endraw %}".to_owned(), "the statement 'raw' isn't supported"),
        ("{% call(x) f() %}{% endcall %}".to_owned(), "the statement 'call' isn't supported"),
        ("{% for x in y recursive %}{% endfor %}".to_owned(), "recursive loops"),
        ("{% endif %}".to_owned(), "the statement 'endif' isn't supported"),
        ("{{ 1|keep_within_bounds }}".to_owned(), "a reserved name"),
        ("{{ (1] }}".to_owned(), "expected ')', found ']'"),
        ("{{ 1) }}".to_owned(), "expected 'no bracket', found ')'"),
        ("{{ 'x }}".to_owned(), "a text has no end"),
        ("{{ 'x\\".to_owned(), "a text has no end"),
        ("{{ x".to_owned(), "a tag has no end"),
        ("{# x".to_owned(), "a comment has no end"),
        ("{% %}".to_owned(), "a statement has no name"),
        ("{{ é }}".to_owned(), "expected a word"),
        ("{{ 1 2 }}".to_owned(), "line 1: unexpected integer"),
        ("{{ 1|batch(2) }}".to_owned(), "unknown filter"),
        ("{{ debug() }}".to_owned(), "unknown function"),
    ] {
        check_error(&source, Kind::Model, expected);
    }
}

/// Each took minutes, gigabytes or the whole process with minijinja alone, fuel or not.
#[test]
fn what_grows_while_it_runs_is_stopped() {
    let namespace = |start: &str, step: &str, end: &str| {
        format!(
            "{{% set ns = namespace(x={start}) %}}{{% for i in range(4000) %}}\
             {{% set ns.x = {step} %}}{{% endfor %}}{end}"
        )
    };
    let doubled =
        |end: &str| format!("{{% set a = ['xx'] %}}{}{end}", "{% set a = [a, a] %}".repeat(40));
    // 256 KiB, by doubling.
    let long_text =
        |end: &str| format!("{{% set x = 'x' %}}{}{end}", "{% set x = x ~ x %}".repeat(18));
    let wide = "{% set a = ['xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'] %}";
    let wide = format!("{wide}{}", "{% set a = a + a %}".repeat(30));
    for source in [
        namespace("[]", "[ns.x]", ""),
        namespace("[]", "(ns.x,)", ""),
        namespace("[]", "{'k': ns.x}", ""),
        namespace("[]", "{'k': ns.x, 'l': ns.x}", ""),
        namespace("[1]", "ns.x + ns.x", ""),
        namespace("['x']", "ns.x + ns.x", "{{ ns.x ~ '' }}"),
        namespace("'x'", "ns.x + ns.x", ""),
        namespace("'x'", "ns.x ~ ns.x", ""),
        namespace("[]", "ns", ""),
        namespace("[]", "[ns]", ""),
        namespace("[]", "dict(a=ns)", ""),
        namespace("[]", "namespace(a=ns.x)", ""),
        namespace("[]", "ns.x|map('upper')", "{{ ns.y.z.a }}"),
        namespace("[1]", "ns.x|list + [ns.x]", ""),
        doubled("{{ a ~ '' }}"),
        doubled("{{ a }}"),
        doubled("{{ a|tojson }}"),
        doubled("{{ a == [a] }}"),
        doubled("{{ a|string }}"),
        wide,
        "{% set a = ['x'] %}{% for b in [[a, a]] %}{% for c in [[b, b]] %}{{ c.d.e }}".to_owned()
            + "{% endfor %}{% endfor %}",
        "{% macro m(x) %}{{ m([x, x]) }}{% endmacro %}{{ m(1) }}".to_owned(),
        "{% macro m(x) %}{{ m(x + x) }}{% endmacro %}{{ m([1]) }}".to_owned(),
        "{% for i in range(100000) %}{{ i }}{% endfor %}".to_owned(),
        "{% for a in range(4000) %}{% for b in range(4000) %}{% endfor %}{% endfor %}".to_owned(),
        "{{ [1]|tojson(indent=1000000000) }}".to_owned(),
        "{{ '{:>1000000000}'.format('x') }}".to_owned(),
        long_text("{{ x.replace('x', x) }}"),
        long_text("{{ x|replace('x', x) }}"),
        long_text("{{ x.join(range(4000)) }}"),
        long_text("{{ range(4000)|join(x) }}"),
        long_text("{{ x.split('') }}"),
        long_text("{{ x|list|tojson }}"),
        "{% set a = [[range(4000)|list]] %}{% set b = [[range(4000)|list]] %}\
         {{ range(4000)|map('attr', 'x')|map('default', a)|select('eq', b)|list\
         |map('default', a)|reject('eq', a)|list|length }}{{ range(5000) }}"
            .to_owned(),
        long_text("{{ (x ~ x ~ x ~ x ~ x)|length }}"),
        long_text("{% for i in range(4000) %}{% set y = x.count('y') %}{% endfor %}"),
        "{% set a = [range(4000)|list] %}{% set b = [range(4000)|list] %}{% for i in range(4000) %}\
         {% for j in range(4000) %}{% if a == b %}{% endif %}{% endfor %}{% endfor %}"
            .to_owned(),
        long_text("{% for i in range(4000) %}{% set y %}{{ x }}{% endset %}{% endfor %}"),
        "{{ strftime_now('%Y'.replace('Y', 'YYYYYYYYYYYYYYYYYYYYYYYYYYYYYYYYYYYYYYYYY') ~ \
         'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx') }}"
            .to_owned(),
    ] {
        let start = Instant::now();
        match rendered(&source) {
            Ok(text) => panic!("{} bytes of {source:.200}", text.len()),
            Err(error) => {
                assert_eq!(error.kind(), Kind::Model, "{error}");
                assert!(
                    start.elapsed() < Duration::from_secs(10),
                    "{:?} {source}",
                    start.elapsed()
                );
            }
        }
    }
}

#[test]
fn too_much_output_is_an_error() {
    let source = "{% for i in range(9) %}{{ messages[0].content }}{% endfor %}";
    let template = ChatTemplate::new(source, "", "").expect("a sound template");
    let huge = [message("user", &"x".repeat(TEMPLATE_OUTPUT_BYTES_MAX / 8))];
    let error = template.render(&huge).map(|_| ()).expect_err("too long");
    assert!(error.to_string().contains("it makes more than 1048576 bytes"), "{error}");
    assert_eq!(error.kind(), Kind::Model);
}

#[test]
fn the_longest_chat_renders() {
    use crate::limits::{MESSAGES_MAX, PROMPT_CHARS_MAX};
    let roles = ["user", "assistant"].into_iter().cycle();
    let text = "蜂".repeat(PROMPT_CHARS_MAX / MESSAGES_MAX);
    let chat: Vec<Message> = roles.take(MESSAGES_MAX).map(|role| message(role, &text)).collect();
    for source in [CHATML, TURNS] {
        let template = ChatTemplate::new(source, "", "").expect("a sound template");
        let text = template.render(&chat).unwrap_or_else(|error| panic!("{error}"));
        assert!(text.len() > PROMPT_CHARS_MAX * 3);
    }
}

/// Whatever the source is, the guard answers, and what it lets through the engine survives.
#[test]
fn no_mutation_makes_it_panic() {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};
    let pieces =
        ["{%", "%}", "{{", "}}", "'", "\"", "\\", "[", "(", "{", "é", "{#", "-", " in ", "set "];
    for seed in 0..20_000 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut source: Vec<char> = TURNS.chars().collect();
        for _ in 0..=random.next_u32() % 5 {
            let at = random.next_u32() as usize % source.len().max(1);
            match random.next_u32() % 3 {
                0 if at < source.len() => drop(source.remove(at)),
                1 => source.truncate(at),
                _ => {
                    let piece = pieces[random.next_u32() as usize % pieces.len()];
                    source.splice(at..at, piece.chars());
                }
            }
        }
        let source: String = source.into_iter().collect();
        if let (Ok(guarded), true) = (guard::guarded(&source), seed % 10 == 0) {
            assert!(guarded.len() >= source.len(), "seed {seed}");
            let _ = rendered(&source);
        }
    }
}
