//! Which template is taken, what it is told, and that it cannot run wild.

mod common;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{byte_level, tokenizer};
use trt_text::{ChatTemplate, Conversation, Error, Json, Message, Tokenizer};

fn render(source: &str) -> Result<String, Error> {
    let messages = [Message::user("Hi")];
    ChatTemplate::new(source, &tokenizer(&byte_level())).render(&Conversation::new(&messages))
}

fn of(folder: &Path, tools: Option<&Json>) -> Result<String, Error> {
    let messages = [Message::user("Hi")];
    let template = ChatTemplate::open(folder, &tokenizer(&byte_level()))?;
    template.render(&Conversation {
        tools,
        ..Conversation::new(&messages)
    })
}

#[test]
fn template_files_come_before_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    assert!(
        of(folder, None)
            .unwrap()
            .starts_with("<|im_start|>user\nHi")
    );
    write("tokenizer_config.json", r#"{"chat_template": "config"}"#);
    assert_eq!(of(folder, None).unwrap(), "config");
    write("chat_template.json", r#"{"chat_template": "json"}"#);
    assert_eq!(of(folder, None).unwrap(), "json");
    write("chat_template.jinja", "jinja");
    assert_eq!(of(folder, None).unwrap(), "jinja");
    fs::create_dir(folder.join("additional_chat_templates")).unwrap();
    write("additional_chat_templates/tool_use.jinja", "tools");
    let tools = Json::parse("[]").unwrap();
    assert_eq!(of(folder, Some(&tools)).unwrap(), "tools");
    assert_eq!(of(folder, None).unwrap(), "jinja");
}

#[test]
fn named_templates_are_chosen_as_transformers_does() {
    let dir = tempfile::tempdir().unwrap();
    let write = |text: &str| fs::write(dir.path().join("tokenizer_config.json"), text).unwrap();
    let tools = Json::parse("[]").unwrap();
    write(
        r#"{"chat_template": [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]}"#,
    );
    assert_eq!(of(dir.path(), None).unwrap(), "d");
    assert_eq!(of(dir.path(), Some(&tools)).unwrap(), "t");
    write(r#"{"chat_template": [{"name": "rag", "template": "r"}]}"#);
    let error = of(dir.path(), None).unwrap_err().to_string();
    assert!(
        error.contains(r#"named ["rag"], and none named "default""#),
        "{error}"
    );
    write(r#"{"chat_template": 5}"#);
    let error = of(dir.path(), None).unwrap_err().to_string();
    assert!(
        error.contains("tokenizer_config.json: chat_template is not a string"),
        "{error}"
    );
}

#[test]
fn what_is_not_given_is_none_or_undefined_as_in_transformers() {
    let seen = render(
        "{{ tools is none }} {{ documents is none }} {{ bos_token is defined }} {{ date_string is defined }} \
         {{ add_generation_prompt }} {{ messages }}",
    );
    let want = "True True False False True [{'role': 'user', 'content': 'Hi'}]";
    assert_eq!(seen.unwrap(), want);
}

#[test]
fn fields_that_are_null_are_left_out_and_thoughts_have_all_their_names() {
    let message = r#"{"role": "assistant", "content": null, "tool_calls": [], "reasoning": "hm"}"#;
    let messages = [Message::from_json(message).unwrap()];
    let template = ChatTemplate::new("{{ messages[0] }}", &tokenizer(&byte_level()));
    let text = template.render(&Conversation::new(&messages)).unwrap();
    let want = "{'thinking': 'hm', 'role': 'assistant', 'tool_calls': [], 'reasoning': 'hm', 'reasoning_content': 'hm'}";
    assert_eq!(text, want);
}

#[test]
fn a_fault_names_its_line_and_a_template_can_refuse() {
    let error = render("a\nb {{ messages | nosuch }}")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("in line 2") && error.contains("nosuch"),
        "{error}"
    );
    let error = render("{{ raise_exception('Only users, not ' ~ messages[0].role) }}").unwrap_err();
    assert!(
        error.to_string().ends_with("Only users, not user"),
        "{error}"
    );
}

fn tokens() -> Tokenizer {
    tokenizer(&byte_level())
}

#[test]
fn no_template_runs_or_grows_without_bound() {
    let wild = [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='aaaaaaaa') %}{% for a in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x='aaaaaaaa') %}{% for a in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for a in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x|length }}",
        "{% set ns = namespace(x=[1]) %}{% for a in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=[1]) %}{% for a in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x|tojson }}",
        "{% set ns = namespace(x=[1]) %}{% for a in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x ~ '' }}",
        "{% set ns = namespace(x=[1]) %}{% for a in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x == ns.x }}{{ [ns.x, ns.x]|sort }}",
        "{% set ns = namespace(x=1) %}{% for a in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
        "{{ 'a\n' | indent(9999999999) }}",
        "{{ 'a' | center(9999999999) }}",
        "{{ 'a'.center(9999999999) }}{{ 'a'.ljust(9999999999) }}",
        "{{ '7'.zfill(9999999999) }}",
        "{{ 'a\tb'.expandtabs(9999999999) }}",
        "{{ 'a' * 10 ** 12 }}",
        "{{ [1] * 10 ** 12 }}",
        "{{ range(10 ** 12) | list }}",
        "{{ range(99999) | batch(1) | list | tojson(indent=99999) }}",
        "{{ [1] | tojson(indent=9999999999) }}",
        "{{ '%9999999999d' | format(1) }}",
        "{{ '%.9999999999f' | format(1.0) }}",
        "{{ '{:9999999999}'.format(1) }}",
        "{{ '{:>{w}}'.format(1, w=9999999999) }}",
        "{{ ('a' * 9999).replace('a', 'b' * 99999) }}",
        "{{ ('a' * 9999) | replace('a', 'b' * 99999) }}",
        "{{ ('a' * 99999) | list | join('b' * 99999) }}",
        "{{ ('b' * 99999).join('a' * 99999) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
        "{{ 2 ** 10 ** 10 }}",
        "{{ [1, 2] | slice(9999999999) | list }}",
        "{{ [1, 2] | batch(9999999999, 0) | list }}",
        "{{ 1.5 | round(9999999999) }}",
    ];
    let tokenizer = tokens();
    for source in wild {
        eprintln!("{source}");
        let start = Instant::now();
        let messages = [Message::user("Hi")];
        let got = ChatTemplate::new(source, &tokenizer).render(&Conversation::new(&messages));
        let took = start.elapsed();
        assert!(took < Duration::from_secs(20), "{source} took {took:?}");
        let limited = matches!(
            got,
            Err(Error::TemplateLimit { .. } | Error::Template { .. })
        );
        // Some ask for nothing that is much.
        let small = got.as_ref().is_ok_and(|text| text.len() < 1000);
        assert!(limited || small, "{source}: {:?}", got.map(|t| t.len()));
    }
}

#[test]
fn nesting_without_end_is_an_error() {
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("-", ""),
        ("not ", ""),
        ("{'a': ", "}"),
        ("a.b(", ")"),
    ] {
        let source = format!(
            "{{{{ {}1{} }}}}",
            open.repeat(100_000),
            close.repeat(100_000)
        );
        let got = render(&source);
        assert!(matches!(got, Err(Error::Template { .. })), "{open}");
    }
    for open in [
        "{% if 1 %}",
        "{% for x in [1] %}",
        "{% with %}",
        "{% macro f() %}",
        "{% filter upper %}",
    ] {
        assert!(render(&open.repeat(20_000)).is_err(), "{open}");
    }
    for chain in [
        "+1",
        "|upper",
        ".a",
        "[0]",
        "~'a'",
        " and 1",
        " if 1 else 1",
        " is odd",
    ] {
        let got = render(&format!("{{{{ 1{} }}}}", chain.repeat(50_000)));
        assert!(matches!(got, Err(Error::Template { .. })), "{chain}");
        // Long, but nothing is wrong with some of them.
        let _ = render(&format!("{{{{ 1{} }}}}", chain.repeat(240)));
    }
}

#[test]
fn a_long_conversation_has_the_fuel_that_it_needs() {
    let text = "word ".repeat(20_000);
    let messages: Vec<Message> = (0..40).map(|_| Message::user(&text)).collect();
    let source = "{% for m in messages %}{% set c = m.content | trim %}{{ '<|im_start|>' + m.role + c + '<|im_end|>' }}{% endfor %}";
    let prompt = ChatTemplate::new(source, &tokens())
        .render(&Conversation::new(&messages))
        .unwrap();
    assert!(prompt.len() > 4_000_000);
}
