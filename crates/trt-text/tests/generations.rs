//! Answers: how they go on, how they end, and what a conversation runs again.

mod common;

use common::{Script, byte_level, sentence_piece, tokenizer};
use trt_text::{
    Cancel, Chat, ChatTemplate, Context, Ends, Error, Finish, Message, Piece, Settings, Tokenizer,
};

fn ids(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

fn says(text: &str) -> Context<Script> {
    Context::new(Script::new(268, &ids(text)))
}

fn run(context: &mut Context<Script>, settings: &Settings) -> (String, Option<Finish>) {
    let tokenizer = tokenizer(&byte_level());
    let mut generation = context.generate(&tokenizer, &ids("Q"), settings).unwrap();
    let text = generation.text().unwrap();
    (text, generation.finish().cloned())
}

fn most(max_tokens: usize) -> Settings {
    Settings {
        max_tokens: Some(max_tokens),
        ..Settings::default()
    }
}

#[test]
fn an_answer_is_as_long_as_asked_for() {
    let mut context = says("abcdef");
    assert_eq!(
        run(&mut context, &most(3)),
        ("abc".into(), Some(Finish::Length))
    );
    // The last token is not run: nobody asks for what follows it.
    assert_eq!(context.decoder().calls, [ids("Q"), ids("a"), ids("b")]);
    assert_eq!(
        run(&mut says("abc"), &most(0)),
        (String::new(), Some(Finish::Length))
    );
}

#[test]
fn an_end_token_ends_it_and_is_not_shown() {
    let mut script = Script::new(268, &[97, 266, 98]);
    script.max = Some(100);
    let (text, finish) = run(&mut Context::new(script), &Settings::default());
    assert_eq!((text.as_str(), finish), ("a", Some(Finish::EndToken(266))));
    let settings = Settings {
        ends: Ends::Tokens(vec![99]),
        show_special: true,
        ..most(9)
    };
    let mut context = Context::new(Script::new(268, &[97, 266, 98, 99]));
    assert_eq!(
        run(&mut context, &settings),
        ("a<|im_end|>b".into(), Some(Finish::EndToken(99)))
    );
    let never = Settings {
        ends: Ends::Never,
        ..most(3)
    };
    let mut context = Context::new(Script::new(268, &[97, 266, 98]));
    assert_eq!(
        run(&mut context, &never),
        ("ab".into(), Some(Finish::Length))
    );
    let text_only = Settings {
        ends: Ends::Text,
        ..most(3)
    };
    let mut context = Context::new(Script::new(268, &[97, 266, 98]));
    assert_eq!(run(&mut context, &text_only).1, Some(Finish::Length));
}

#[test]
fn a_stop_string_ends_it_before_anything_of_it_is_shown() {
    let settings = Settings {
        stop: vec!["\nUser".into()],
        ..most(20)
    };
    let stop = Some(Finish::StopString("\nUser".into()));
    assert_eq!(
        run(&mut says("hi\nUser: x"), &settings),
        ("hi".into(), stop)
    );
    let late = run(
        &mut says("hi\nUse"),
        &Settings {
            max_tokens: Some(6),
            ..settings.clone()
        },
    );
    assert_eq!(late, ("hi\nUse".into(), Some(Finish::Length)));
    let wrong = Settings {
        stop: vec![String::new()],
        ..most(2)
    };
    let tokenizer = tokenizer(&byte_level());
    let error = says("a").generate(&tokenizer, &[1], &wrong).unwrap_err();
    assert!(matches!(error, Error::EmptyStop));
}

#[test]
fn more_tokens_than_the_context_has_room_for_are_clamped_and_that_is_said() {
    let tokenizer = tokenizer(&byte_level());
    let mut script = Script::new(268, &ids("abcdefgh"));
    script.max = Some(5);
    let mut context = Context::new(script);
    let mut generation = context
        .generate(&tokenizer, &ids("QQ"), &most(100))
        .unwrap();
    assert_eq!(
        (generation.max_tokens(), generation.clamped()),
        (3, Some(100))
    );
    assert_eq!(generation.text().unwrap(), "abc");
    assert_eq!(generation.finish(), Some(&Finish::ContextFull));

    let mut generation = context.generate(&tokenizer, &ids("QQ"), &most(3)).unwrap();
    assert_eq!(generation.clamped(), None);
    let _ = generation.text().unwrap();
    assert_eq!(generation.finish(), Some(&Finish::Length));

    let error = context
        .generate(&tokenizer, &ids("QQQQQ"), &most(1))
        .unwrap_err();
    assert!(
        matches!(error, Error::PromptTooLong { tokens: 5, max: 5 }),
        "{error}"
    );
    let error = context.generate(&tokenizer, &[], &most(1)).unwrap_err();
    assert!(matches!(error, Error::NoTokens));
}

#[test]
fn another_thread_can_cancel_it() {
    let tokenizer = tokenizer(&byte_level());
    let mut context = says(&"x".repeat(1000));
    let cancel = Cancel::default();
    let settings = Settings {
        cancel: cancel.clone(),
        stop: vec!["xyz".into()],
        ..most(1000)
    };
    let mut generation = context.generate(&tokenizer, &ids("Q"), &settings).unwrap();
    let first = generation.next().unwrap().unwrap();
    // It may be the beginning of the stop string.
    assert_eq!((first.token, first.text.as_str()), (Some(120), ""));
    std::thread::scope(|scope| scope.spawn(|| cancel.cancel()).join().unwrap());
    let held = Piece {
        token: None,
        text: "x".into(),
    };
    assert_eq!(generation.next().unwrap().unwrap(), held);
    assert!(generation.next().is_none());
    assert_eq!(generation.finish(), Some(&Finish::Cancelled));
}

#[test]
fn logits_that_are_no_numbers_name_their_position() {
    let tokenizer = tokenizer(&byte_level());
    let mut context = Context::new(Script::new(268, &[97, 999]));
    let mut generation = context.generate(&tokenizer, &ids("QQ"), &most(5)).unwrap();
    assert_eq!(generation.next().unwrap().unwrap().text, "a");
    let error = generation.next().unwrap().unwrap_err().to_string();
    assert_eq!(error, "1 of 268 logits at position 3 are not finite");
    assert!(generation.next().is_none());
    assert_eq!(generation.finish(), None);
}

#[test]
fn what_the_model_fails_with_is_the_error_and_the_next_answer_starts_clean() {
    let tokenizer = tokenizer(&byte_level());
    let mut script = Script::new(268, &ids("ab"));
    script.broken = true;
    let mut context = Context::new(script);
    let error = context
        .generate(&tokenizer, &ids("QQ"), &most(5))
        .unwrap_err();
    assert_eq!(error.to_string(), "the device is gone");
    assert!(context.tokens().is_empty());
}

#[test]
fn an_answer_runs_only_what_is_not_remembered() {
    let tokenizer = tokenizer(&byte_level());
    let mut context = says("abcd");
    let _ = context
        .generate(&tokenizer, &ids("one "), &most(2))
        .unwrap()
        .text()
        .unwrap();
    assert_eq!(context.tokens(), ids("one a"));
    let _ = context
        .generate(&tokenizer, &ids("one abtwo"), &most(1))
        .unwrap()
        .text()
        .unwrap();
    let _ = context
        .generate(&tokenizer, &ids("one xy"), &most(1))
        .unwrap()
        .text()
        .unwrap();
    let _ = context
        .generate(&tokenizer, &ids("one xy"), &most(1))
        .unwrap()
        .text()
        .unwrap();
    let calls = &context.decoder().calls;
    let wanted = ["one ", "a", "btwo", "xy", "y"].map(ids);
    assert_eq!(calls, &wanted);
    assert_eq!(context.decoder().held, ids("one xy"));
}

fn chat_files() -> (Tokenizer, ChatTemplate) {
    let tokenizer = tokenizer(&byte_level());
    let folder = tempfile::tempdir().unwrap();
    let template = ChatTemplate::open(folder.path(), &tokenizer).unwrap();
    (tokenizer, template)
}

#[test]
fn a_chat_of_several_turns_runs_each_of_them_once() {
    let (tokenizer, template) = chat_files();
    let mut says = ids("yes");
    says.push(266);
    says.extend(ids("no"));
    says.push(266);
    let mut chat = Chat::new(Script::new(268, &says), &tokenizer, &template);
    chat.push(Message::system("Be brief."));
    for want in ["yes", "no"] {
        chat.push(Message::user("hello?"));
        let answer = chat.answer(&Settings::default()).unwrap().text().unwrap();
        assert_eq!(answer, want);
        chat.push(Message::assistant(&answer));
    }
    let calls = &chat.context().decoder().calls;
    let first = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhello?<|im_end|>\n<|im_start|>assistant\n";
    let second = "<|im_end|>\n<|im_start|>user\nhello?<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(calls[0], tokenizer.encode(first, false).unwrap());
    assert_eq!(calls[4], tokenizer.encode(second, false).unwrap());
    assert_eq!(calls.len(), 1 + 3 + 1 + 2);
}

#[test]
fn without_a_template_the_vocabulary_says_the_form_or_nothing_does() {
    let folder = tempfile::tempdir().unwrap();
    let error = ChatTemplate::open(folder.path(), &tokenizer(&sentence_piece())).unwrap_err();
    assert!(matches!(error, Error::NoTemplate));
}
