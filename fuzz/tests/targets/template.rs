//! Chat templates: rendered with a conversation, bounded in time and memory.

use candle_trt_fuzz::Target;
use trt_text::{ChatTemplate, Conversation, Files, Json, Message, Tokenizer};

const LLAMA: &str = include_str!("../../../crates/trt-text/tests/references/models/llama31.jinja");
const QWEN: &str = include_str!("../../../crates/trt-text/tests/references/models/qwen3.jinja");
const MACROS: &str = include_str!("../../../crates/trt-text/tests/references/models/macros.jinja");
const GENERATION: &str =
    include_str!("../../../crates/trt-text/tests/references/models/smollm3.jinja");

/// Pieces that grow, loop, or mean something to the template language.
const WORDS: [&str; 48] = [
    "{% for x in range(99999) %}",
    "{% endfor %}",
    "{% set ns.x = ns.x ~ ns.x %}",
    "{% set ns.x = [ns.x, ns.x] %}",
    "{% set ns = namespace(x='a') %}",
    "{% macro f(a, b=1) %}",
    "{% endmacro %}",
    "{{ f(f) }}",
    "{% call f() %}",
    "{% endcall %}",
    "{% generation %}",
    "{% endgeneration %}",
    "{% raw %}",
    "{% endraw %}",
    "{% set x %}",
    "{% endset %}",
    "{% filter upper %}",
    "{% endfilter %}",
    "{% if x %}",
    "{% elif y %}",
    "{% else %}",
    "{% endif %}",
    "{% break %}",
    "{% continue %}",
    "{%- ",
    " -%}",
    "{{- ",
    " -}}",
    "{# ",
    " #}",
    " | tojson(indent=99)",
    " | indent(99999999)",
    ".items()",
    ".split('a')",
    "[::-1]",
    " ~ ",
    " * ",
    " % ",
    " in ",
    " is ",
    " not ",
    "|join('x')",
    "|sort",
    "|list",
    "loop.index",
    "messages[0]['content']",
    ".replace('a', 'bb')",
    ".format(1, 2)",
];

#[test]
fn a_template_renders_or_is_refused_in_bounded_time_and_memory() {
    let small = [
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
        "{{ 'a' * 3 ~ messages | map(attribute='role') | join(',') | replace('u', 'v') | title }}",
        "{% set ns = namespace(x='a') %}{% for i in range(9) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
        "{% macro f(a) %}{{ a }}{{ caller() }}{% endmacro %}{% call f(1) %}x{% endcall %}{{ [1, 2][::-1] | sort }}",
        "{{ '%s %d' % ('a', 3) }}{{ '{:>5}'.format('b') }}{{ {'a': [1, (2, 3)]} | tojson(indent=2) }}{{ 7 // 2 ** 2 % 3 }}",
        "{{ messages | selectattr('role', 'equalto', 'user') | groupby('role') | batch(2) | list }}{{ strftime_now('%Y') }}",
    ];
    let corpus: Vec<Vec<u8>> = [LLAMA, QWEN, MACROS, GENERATION]
        .iter()
        .chain(&small)
        .map(|text| text.as_bytes().to_vec())
        .collect();
    let json = br#"{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}"#;
    let files = Files {
        tokenizer: json,
        ..Files::default()
    };
    let tokenizer = Tokenizer::from_files(&files).expect("a tokenizer");
    let tools = Json::parse(
        r#"[{"type": "function", "function": {"name": "f", "parameters": {"a": [1, null]}}}]"#,
    );
    let tools = tools.expect("JSON");
    let messages = [
        Message::system("Be brief."),
        Message::user("Hi"),
        Message::assistant("Yo"),
    ];
    let target = Target {
        words: &WORDS,
        bytes: 256 << 20,
        ..Target::new("template", &corpus)
    };
    target.run(|bytes| {
        let source = String::from_utf8_lossy(bytes);
        let conversation = Conversation {
            tools: Some(&tools),
            ..Conversation::new(&messages)
        };
        let _ = ChatTemplate::new(&source, &tokenizer).render(&conversation);
    });
}
