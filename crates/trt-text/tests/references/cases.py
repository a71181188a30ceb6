"""What `make.py` renders."""

VARIABLES = {
    "s": "Hello World",
    "t": "  spaced out \n",
    "u": "naïve ☃ 😀",
    "quote": "it's \"both\"",
    "html": "<b>&'\"</b>",
    "lines": "one\ntwo\r\nthree\n\nfive",
    "n": 7,
    "m": -3,
    "f": 2.5,
    "g": 1e16,
    "whole": 3.0,
    "tiny": 1.5e-07,
    "big": 12345678901234567890,
    "yes": True,
    "no": False,
    "nil": None,
    "empty": "",
    "l": [3, 1, 2],
    "words": ["banana", "Apple", "cherry", "apple"],
    "nested": [[1, 2], [3, [4, None]]],
    "d": {"b": 1, "a": "x", "C": None, "items": 5},
    "deep": {"k": {"list": [1, {"z": "é", "y": [True, None, 1.0]}]}},
    "users": [
        {"name": "Ann", "age": 30, "on": True, "city": {"name": "Rome"}},
        {"name": "bob", "age": 25, "on": False, "city": {"name": "Oslo"}},
        {"name": "Cid", "age": 30, "on": True, "city": {"name": "Rome"}},
    ],
    "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}],
    "tools": None,
}

E_ = []


def add(text):
    """Each line is a case; expressions beside each other are one each, so that none hides behind another's error."""
    for line in filter(None, text.strip("\n").split("\n")):
        alone = "{%" not in line and "{#" not in line
        parts = line.split("}} {{") if alone else [line]
        for i, part in enumerate(parts):
            E_.append(("{{" if i else "") + part + ("}}" if i + 1 < len(parts) else ""))


# Printing.
add(
    r"""
{{ n }} {{ m }} {{ f }} {{ g }} {{ whole }} {{ tiny }} {{ big }} {{ yes }} {{ no }} {{ nil }} {{ empty }}|
{{ 1.0 }} {{ 100.0 }} {{ 1e22 }} {{ 1e15 }} {{ 123456789.125 }} {{ 0.1 + 0.2 }} {{ 1e-5 }} {{ 0.0001 }} {{ -0.0 }} {{ 1e100 }}
{{ l }} {{ words }} {{ nested }} {{ d }} {{ deep }}
{{ [quote, "a'b", 'a"b', "tab\tnl\nbs\\"] }}
{{ ["é", "☃", "\x01", "\x7f", "\u200b", "\xa0"] }}
{{ (1, 2) }} {{ (1,) }} {{ () }} {{ [] }} {{ {} }} {{ {'a': 1, 2: [3]} }}
{{ true }} {{ True }} {{ false }} {{ False }} {{ none }} {{ None }}
{{ undefined_thing }}|
{{ d.nothing }}|
{{ d.nothing.more }}
{{ undefined_thing.x }}
{{ undefined_thing['x'] }}
{{ undefined_thing + 1 }}
{{ undefined_thing ~ 'x' }}
{{ 'x' + undefined_thing }}
{{ undefined_thing == undefined_other }} {{ undefined_thing == none }} {{ undefined_thing is none }}
{{ undefined_thing < 1 }}
{{ not undefined_thing }} {{ undefined_thing or 'else' }} {{ undefined_thing and 1 }}|
{% for x in undefined_thing %}{{ x }}{% else %}none{% endfor %}
{% for x in none %}{{ x }}{% endfor %}
{% for x in 5 %}{{ x }}{% endfor %}
{{ undefined_thing | length }}
{{ undefined_thing | list }} {{ undefined_thing | join(',') }}|{{ undefined_thing | upper }}|{{ undefined_thing | trim }}|
{{ undefined_thing() }}
{{ [undefined_thing] }}
{{ undefined_thing | tojson }}
{{ nil.x }}|
{{ nil.x.y }}
{{ s.x }}|{{ n.x }}|
{{ none + 1 }}
{{ html }} {{ html | escape }} {{ html | e }} {{ html | safe }} {{ html | forceescape }}
{{ 'a' 'b' }}
{{ "\u00e9\n\x41\101\\ \q" }}
{{ 'it''s' }}
{{ 1_000 }} {{ 0x1F }} {{ 0b101 }} {{ 0o17 }}
{{ 1e3 }} {{ 1.5e3 }} {{ 1E-2 }}
{{ 2.5|string }} {{ 10|string ~ 'x' }} {{ none|string }} {{ true|string }} {{ [1,'a']|string }}
{{ 007 }}
{{ 12345678901234567890123 }}
"""
)
# Arithmetic, comparison, logic.
add(
    r"""
{{ 1 + 2 }} {{ 7 - 10 }} {{ 3 * 4 }} {{ 7 / 2 }} {{ 8 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 2 ** 10 }}
{{ 7.5 // 2 }} {{ -7.5 // 2 }} {{ 7.5 % 2 }} {{ -7.5 % 2 }} {{ 2 ** -1 }} {{ 2.0 ** 3 }} {{ 2 ** 0.5 }}
{{ 1 / 0 }}
{{ 1 // 0 }}
{{ 1 % 0 }}
{{ 1.0 / 0 }}
{{ 2 ** 70 }}
{{ big + big }} {{ big * 2 }}
{{ 9223372036854775807 + 1 }} {{ 9223372036854775807 * 9223372036854775807 }}
{{ -2 ** 2 }} {{ 2 ** 3 ** 2 }} {{ -n }} {{ +n }} {{ - -n }}
{{ 1 + 2 * 3 - 4 / 2 }} {{ (1 + 2) * 3 }}
{{ true + true }} {{ true * 3 }} {{ -true }}
{{ 'a' + 'b' }} {{ 'ab' * 3 }} {{ 3 * 'ab' }} {{ 'x' * 0 }} {{ 'x' * -1 }}|
{{ [1] + [2] }} {{ [1, 2] * 2 }} {{ (1,) + (2,) }} {{ (1, 2) * 2 }}
{{ [1] + (2,) }}
{{ 'a' + 1 }}
{{ 1 + 'a' }}
{{ 'a' ~ 1 ~ none ~ true ~ [1] ~ 1.0 }}
{{ 1 ~ 2 + 3 }} {{ 1 + 2 ~ 3 }} {{ 2 * 3 ~ 4 }}
{{ 'a' - 'b' }}
{{ [1] - [1] }}
{{ 'a' * 'b' }}
{{ 'a' * 2.0 }}
{{ '%s is %d and %5.2f' % ('x', 3, 1.5) }}
{{ '%s' % 'one' }} {{ '%05d|%-5s|%+d|%x|%%' % (42, 'ab', 7, 255) }}
{{ '%s' % ('a', 'b') }}
{{ '%(a)s-%(b)d' % {'a': 'x', 'b': 4} }}
{{ '%r %s' % ('a', [1, 'b']) }}
{{ 1 == 1.0 }} {{ 1 == '1' }} {{ true == 1 }} {{ 'a' == 'a' }} {{ [1, 2] == [1, 2] }} {{ [1] == (1,) }} {{ {'a': 1} == {'a': 1.0} }} {{ none == false }} {{ none == none }}
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 3 > 2 > 1 }} {{ 1 < 2 == true }} {{ 1 == 1 == 1 }} {{ 1 != 2 != 1 }}
{{ 'a' < 'b' }} {{ 'B' < 'a' }} {{ [1, 2] < [1, 3] }} {{ (1, 2) < (2,) }} {{ 1 < 1.5 }} {{ true < 2 }}
{{ 1 < 'a' }}
{{ none < 1 }}
{{ [1] < (2,) }}
{{ {} < {} }}
{{ 'a' in 'abc' }} {{ 'd' not in 'abc' }} {{ 1 in l }} {{ 5 in l }} {{ 'a' in d }} {{ 'x' in d }} {{ '' in 'a' }} {{ 1.0 in l }} {{ true in [1] }}
{{ 1 in 'abc' }}
{{ 1 in 5 }}
{{ 'x' in none }}
{{ 'x' in undefined_thing }}
{{ none in [none] }} {{ none in {'a': 1} }}
{{ not true }} {{ not '' }} {{ not [] }} {{ not 0 }} {{ not 0.0 }} {{ not none }} {{ not {} }} {{ not 'a' }}
{{ 1 and 2 }} {{ 0 and 2 }} {{ '' or 'x' }} {{ 1 or 2 }} {{ none or false }} {{ [] or {} }} {{ not 1 == 2 }}
{{ 'yes' if yes else 'no' }} {{ 'yes' if no else 'no' }} {{ 'yes' if no }}| {{ ('yes' if no) is defined }}
{{ 1 if true else 2 if true else 3 }}
{{ 'a' if 'x' in d else 'b' }} {{ not 'x' in d }} {{ 'x' not in d and yes }}
{{ (1 < 2) + 1 }}
{{ 1 <> 2 }}
{{ 1 < n < 9 }} {{ 1 < n and n < 9 }} {{ 2 ** 3 * 'a' }} {{ 'a' * 1001 * 1000 }} {{ n < 'a' }} {{ nil < n }} {{ l < (2,) }} {{ n in s }} {{ s * f }} {{ l * 2 }} {{ s * 2 }} {{ f * n }} {{ n * m }} {{ n % m }} {{ f % n }} {{ m % f }} {{ f + n }} {{ yes + yes }} {{ l == [3, 1, 2] }} {{ d == d.copy() }} {{ d == {} }} {{ (1, 2) == l }} {{ nil == undefined_thing }} {{ s == n }} {{ n == 7.0 }} {{ s in [s] }} {{ d in [d] }} {{ n not in l }} {{ l + (1,) }} {{ s + n }} {{ big ~ f }} {{ g ~ tiny }} {{ [g] ~ s }} {{ users|sort(attribute='age', reverse=true)|map(attribute='name')|list }} {{ users|unique(attribute='city.name')|map(attribute='name')|list }} {{ '%s: %s' % (s, l) }} {{ '%s' % l }} {{ '%s' % d }}
{{ 5 is divisibleby 5 }} {{ not 5 is divisibleby 2 }} {{ 5 is not divisibleby 2 }}
{{ 10 is divisibleby(5) and true }}
{{ 1.5 is divisibleby 0.5 }}
{{ -n + 2 }} {{ -n|abs }} {{ (-n)|abs }} {{ -7|abs }} {{ 2 ** -n|abs }}
{{ n // 2.0 }} {{ n % 2.5 }} {{ 1e308 * 10 }} {{ -1e308 * 10 }}
"""
)
# Subscripts and slices.
add(
    r"""
{{ l[0] }} {{ l[-1] }} {{ l[10] }}|{{ l['x'] }}|{{ l.0 }}
{{ s[0] }} {{ s[-1] }} {{ s[100] }}| {{ s[1:4] }} {{ s[:5] }} {{ s[-5:] }} {{ s[::2] }} {{ s[::-1] }} {{ s[8:2:-2] }} {{ s[-3:-1] }} {{ s[:] }}
{{ u[6] }} {{ u[-1] }} {{ u[::-1] }} {{ u[2:8] }}
{{ l[1:] }} {{ l[:1] }} {{ l[::-1] }} {{ l[-2:] }} {{ l[5:] }} {{ l[2:0:-1] }} {{ l[:-1] }} {{ (1,2,3)[1:] }}
{{ l[::0] }}
{{ l[none:2] }} {{ l[1:none] }} {{ l[0:100] }} {{ l[-100:100] }} {{ l[yes] }}
{{ l[1.0] }}|
{{ d['a'] }} {{ d.a }} {{ d['nothing'] }}| {{ d['items'] }} {{ d.C }} {{ d["b"] }}
{{ d.items() | list }} {{ d.keys() | list }} {{ d.values() | list }}
{{ d.items is defined }} {{ d['items'] }} {{ d.get('items') }} {{ d.get('q') }} {{ d.get('q', 4) }}
{{ deep.k.list[1].z }} {{ deep['k']['list'][1]['y'][0] }} {{ deep.k.list.1.z }}
{{ users[0].city.name }} {{ users[-1]['name'][0] }}
{{ n[0] }}|{{ nil[0] }}|
{{ d[0] }}|{{ {1: 'one'}[1] }} {{ {1: 'one'}[1.0] }} {{ {true: 't'}[1] }} {{ {none: 'n'}[none] }}
{{ d[[]] }}|
{{ s[0:2:1, 3] }}
{{ s.__class__ }}|
{{ s.__class__.__mro__ }}
{{ l.append(4) }}
{{ d.update({'z': 1}) }}
{{ l.pop() }}
{{ d.pop('a') }}
{{ l.index(2) }} {{ l.count(2) }} {{ words.index('cherry') }}
{{ l.index(9) }}
{{ l.nothing() }}
{{ d.nothing() }}
{{ s.nothing() }}
{{ (1, 2).index(2) }} {{ (1, 2, 2).count(2) }} {{ l.copy() }} {{ d.copy() }}
"""
)
# Views, parts and sums of lists.
add(
    r"""
{{ d.keys() }} {{ d.items() }} {{ d.values() }} {{ d.items()|length }} {{ d.items() is sequence }} {{ d.keys() is iterable }} {{ 'a' in d.keys() }} {{ d.items()|first }} {{ d.keys()|sort|join }} {{ d.values()|tojson }}
{{ l[1:]|tojson }} {{ (l + [9])|tojson }} {{ l[1:] is sequence }} {{ l[1:].index(2) }} {{ l[1:] == [1, 2] }} {{ l[1:]|length }} {{ (l + l)[4] }} {{ l[1:] is iterable }} {{ l[1:][0] }} {{ l[1:]|string }} {{ (l + [[1]])|string }}
{{ (1, 2)[:1] }} {{ ((1, 2) + (3,))|tojson }} {{ [l[1:], 'x'] }} {{ [l[1:], [0]]|sort }} {{ l[1:] ~ '' }} {{ l ~ '' }} {{ [1.0, 'a', none] ~ '' }}
{{ 1e16 ~ '' }} {{ ['\u200b'] ~ '' }}
{% filter upper %}{% set a = 1 %}{{ a }}{% endfilter %}{{ a }}|
{% set x %}{% set a = 1 %}{{ a }}{% endset %}{{ a }}{{ x }}|
{% macro f() %}{{ caller() }}{% endmacro %}{% call f() %}{% set a = 1 %}{{ a }}{% endcall %}{{ a }}|
{% if true %}{% set a = 1 %}{% endif %}{{ a }} {% for i in [1] %}{% if true %}{% set b = 1 %}{% endif %}{{ b }}{% endfor %}{{ b }}|
{% set a = 1 %}{% for i in [1, 2] %}{{ a }}{% set a = 5 %}{{ a }}{% endfor %}{{ a }}
{% set x | replace('a', '=') %}aba{% set q = 1 %}{% endset %}{{ x }}{{ q }}| {%- set y -%} b {%- endset -%} {{ y }} {% set a, b = 1, 2 %}{{ a }}{% filter replace("b", "=") -%} b {% endfilter -%} c
{% set a = 1 %}{% with %}{% set a = 2 %}{{ a }}{% endwith %}{{ a }}
{% set a = 1 %}{% macro f() %}{{ a }}{% set a = 3 %}{{ a }}{% endmacro %}{{ f() }}{{ a }}
{% macro f(a, b='x') %}{{ a }}{{ b }}{% endmacro %}{{ f('q', b='(') }}{% macro g(a=[1, 2], b={'k': 1}) %}{{ a }}{{ b }}{% endmacro %}{{ g() }}
{% with a = n, b = m %}{{ a }}{{ b }}{% endwith %}
"""
)
# Methods of strings.
add(
    r"""
{{ t.strip() }}|{{ t.lstrip() }}|{{ t.rstrip() }}|{{ 'xxaxx'.strip('x') }} {{ 'abcba'.strip('ab') }} {{ 'xa'.lstrip('x') }} {{ 'ax'.rstrip('x') }} {{ t.strip(none) }}|
{{ '\u00a0\u3000a\u2003'.strip() }}|{{ '\ufeffa'.strip() }}|{{ '\x1ca\x1f'.strip() }}|{{ '\u200ba'.strip() }}|
{{ s.upper() }} {{ s.lower() }} {{ s.title() }} {{ s.capitalize() }} {{ s.swapcase() }} {{ 'ß'.upper() }} {{ 'ǅ'.title() }} {{ "they're bill's".title() }} {{ 'a1b c_d'.title() }} {{ 'STRASSE ß'.casefold() }} {{ 'éA'.capitalize() }} {{ 'ΑΣ'.lower() }}
{{ 'a b  c '.split() }} {{ 'a,b,,c'.split(',') }} {{ 'a,b,c'.split(',', 1) }} {{ 'a b c'.split(none, 1) }} {{ ''.split() }} {{ ''.split(',') }} {{ 'a<>b<>c'.split('<>') }} {{ 'a b c'.split(maxsplit=1) }} {{ 'a,b'.split(sep=',') }} {{ ' a  b '.split(none, 1) }} {{ 'a b'.split(' ', 0) }} {{ 'a,b'.split(',', -1) }}
{{ 'a'.split('') }}
{{ 'a,b,c'.rsplit(',', 1) }} {{ 'a b c'.rsplit(none, 1) }} {{ ' a  b  c '.rsplit() }} {{ 'a,b'.rsplit(',') }} {{ ' a  b '.rsplit(none, 1) }}
{{ s.startswith('He') }} {{ s.startswith(('x', 'H')) }} {{ s.endswith('ld') }} {{ s.endswith(('x', 'd')) }} {{ s.startswith('l', 2) }} {{ s.startswith('') }} {{ s.endswith('lo', 0, 5) }} {{ s.startswith('W', -5) }}
{{ s.startswith(1) }}
{{ s.startswith(['H']) }}
{{ s.replace('l', 'L') }} {{ s.replace('l', 'L', 1) }} {{ s.replace('', '-') }} {{ s.replace('zzz', '') }} {{ 'aaa'.replace('aa', 'b') }} {{ 'ab'.replace('', '-', 2) }} {{ s.replace('l', 'L', -1) }}
{{ s.find('o') }} {{ s.find('z') }} {{ s.rfind('o') }} {{ s.index('W') }} {{ s.rindex('l') }} {{ s.count('l') }} {{ s.count('') }} {{ s.find('o', 5) }} {{ u.find('😀') }} {{ s.find('o', 5, 7) }} {{ 'aaaa'.count('aa') }} {{ s.find('', 20) }}
{{ s.index('z') }}
{{ s.isdigit() }} {{ '12'.isdigit() }} {{ ''.isdigit() }} {{ '²'.isdigit() }} {{ '²'.isdecimal() }} {{ '½'.isnumeric() }} {{ 'ab'.isalpha() }} {{ 'a1'.isalnum() }} {{ ' '.isspace() }} {{ 'ab'.islower() }} {{ 'AB'.isupper() }} {{ 'Ab Cd'.istitle() }} {{ 'a'.isascii() }} {{ 'é'.isascii() }} {{ '1a'.isidentifier() }} {{ 'é'.isalpha() }} {{ 'ab\n'.isprintable() }} {{ '1'.islower() }}
{{ ', '.join(['a', 'b']) }} {{ ''.join('abc') }} {{ '-'.join(d) }} {{ ','.join([]) }}|
{{ ','.join([1, 2]) }}
{{ lines.splitlines() }} {{ lines.splitlines(true) }} {{ ''.splitlines() }} {{ 'a\x0bb\x0cc\x1cd\u2028e\x85f'.splitlines() }} {{ 'a\n'.splitlines(keepends=true) }}
{{ 'ab'.center(6) }}|{{ 'ab'.center(7, '*') }} {{ 'abc'.center(6, '-') }} {{ 'ab'.ljust(5) }}|{{ 'ab'.rjust(5, '.') }} {{ '42'.zfill(5) }} {{ '-42'.zfill(5) }} {{ '+4'.zfill(4) }} {{ 'ab'.ljust(1) }}
{{ 'a-b-c'.partition('-') }} {{ 'a-b-c'.rpartition('-') }} {{ 'abc'.partition('-') }} {{ 'abc'.rpartition('-') }}
{{ 'prefix-x'.removeprefix('prefix-') }} {{ 'x.py'.removesuffix('.py') }} {{ 'x'.removeprefix('y') }} {{ 'x'.removesuffix('') }}
{{ 'a\tb'.expandtabs(4) }} {{ 'a\tb\tcc\t'.expandtabs() }}|
{{ '{} and {}'.format('x', 2) }} {{ '{1} {0}'.format('a', 'b') }} {{ '{x}'.format(x=3) }} {{ '{{}}'.format() }} {{ '{:>5}|{:<5}|{:^5}'.format('a', 'b', 'c') }} {{ '{:.2f} {:05d} {:,}'.format(3.14159, 42, 1234567) }} {{ '{0[a]}'.format(d) }} {{ '{!r}'.format('a') }}
{{ '{}'.format() }}
{{ 'abc'.encode('utf-8') }}
{{ 'abc'.translate({97: 'x'}) }}
{{ 'abc'.maketrans({'a': 'b'}) }}
{{ s.upper }}
{{ s.upper is callable }} {{ s.split('o') | length }} {{ s.strip().lower().split(' ')[0] }}
{{ 'a'.strip(1) }}
{{ 'a'.upper('x') }}
"""
)
# Filters, in the order of Jinja's documentation.
add(
    r"""
{{ -5|abs }} {{ (-5)|abs }} {{ 2.5|abs }} {{ m|abs }}
{{ 'a'|abs }}
{{ d|attr('a') }}|{{ s|attr('upper') is defined }} {{ d|attr('nothing') is defined }}
{{ [1,2,3,4,5]|batch(2)|list }} {{ [1,2,3]|batch(2, 'x')|list }} {{ []|batch(2)|list }}
{{ 'hELLO wORLD'|capitalize }} {{ 5|capitalize }}
{{ 'ab'|center(6) }}|{{ 'ab'|center(width=5) }}|{{ 'abc'|center(2) }}|{{ 'x'|center|length }}
{{ undefined_thing|default('d') }} {{ none|default('d') }} {{ none|default('d', true) }} {{ ''|default('d') }} {{ ''|default('d', boolean=true) }} {{ undefined_thing|d('e') }} {{ undefined_thing|default }}| {{ 0|default(5, true) }}
{{ d|dictsort }} {{ {'b': 1, 'A': 2, 'c': 0}|dictsort }} {{ {'b': 1, 'A': 2, 'c': 0}|dictsort(true) }} {{ {'b': 1, 'A': 2, 'c': 0}|dictsort(false, 'value') }} {{ {'b': 1, 'A': 2, 'c': 0}|dictsort(by='value', reverse=true) }}
{{ {'b': 1}|dictsort(by='nothing') }}
{{ 13|filesizeformat }} {{ 1300000|filesizeformat }} {{ 1048576|filesizeformat(true) }} {{ 1|filesizeformat }} {{ '1000'|filesizeformat }} {{ 0|filesizeformat }}
{{ l|first }} {{ s|first }} {{ []|first }}| {{ ''|first }}|{{ d|first }}
{{ 'x5'|float }} {{ '5.5'|float }} {{ 5|float }} {{ 'abc'|float(1.5) }} {{ none|float }} {{ '1e3'|float }} {{ ' 2 '|float }} {{ 'nan'|float }} {{ 'inf'|float }} {{ '1_000'|float }}
{{ '%s-%s'|format(1, 'b') }} {{ '%(x)s'|format(x=3) }} {{ '%.3f'|format(3.14159) }} {{ '%s'|format }}
{{ '%d'|format('a') }}
{% for g in users|groupby('age') %}{{ g.grouper }}:{{ g.list|map(attribute='name')|join('+') }};{{ g[0] }}={{ g[1]|length }} {% endfor %}
{% for age, list in users|groupby('age') %}{{ age }}={{ list|length }} {% endfor %}
{% for name, list in users|groupby('city.name') %}{{ name }}={{ list|length }} {% endfor %}
{% for k, list in users|groupby('missing', default='none') %}{{ k }}={{ list|length }} {% endfor %}
{{ users|groupby('missing') }}
{% for k, list in [{'a':'x'},{'a':'X'},{'a':'y'}]|groupby('a') %}{{ k }}={{ list|length }} {% endfor %}
{% for k, list in [{'a':'x'},{'a':'X'},{'a':'y'}]|groupby('a', case_sensitive=true) %}{{ k }}={{ list|length }} {% endfor %}
{{ 'a\nb\n\nc'|indent }} {{ 'a\nb'|indent(2, true) }} {{ 'a\n\nb'|indent(2, blank=true) }} {{ 'a\nb'|indent('--') }} {{ 'a\nb'|indent(width=1, first=true) }} {{ 'a\n\nb\n'|indent(2) }}| {{ ''|indent(3, true) }}|
{{ '42'|int }} {{ '4.7'|int }} {{ 4.7|int }} {{ -4.7|int }} {{ 'abc'|int }} {{ 'abc'|int(5) }} {{ '0x1A'|int(base=16) }} {{ '0x1A'|int(0, 16) }} {{ '101'|int(base=2) }} {{ none|int }} {{ true|int }} {{ ' 7 '|int }} {{ '1_000'|int }} {{ []|int(3) }} {{ '0b11'|int(0, 2) }} {{ '0o17'|int(0, 8) }}
{{ '123456789012345678901234'|int }}
{{ d|items|list }} {{ {'x': 1}|items|list }} {{ undefined_thing|items|list }}
{{ l|items }}
{{ l|join }} {{ l|join(', ') }} {{ users|join('|', attribute='name') }} {{ 'abc'|join('-') }} {{ []|join(',') }}| {{ [1, none, true, 1.0]|join(' ') }} {{ words|join(d=';') }} {{ (1,2)|join('-') }} {{ d|join(',') }}
{{ l|last }} {{ s|last }} {{ []|last }}|
{{ l|length }} {{ s|length }} {{ u|length }} {{ d|length }} {{ []|count }} {{ (1,2)|length }} {{ range(5)|length }}
{{ 5|length }}
{{ none|length }}
{{ 'abc'|list }} {{ d|list }} {{ range(3)|list }} {{ (1,2)|list }} {{ l|list }}
{{ 5|list }}
{{ 'ABC'|lower }} {{ 5|lower }} {{ none|lower }} {{ true|lower }} {{ ['A']|lower }}
{{ users|map(attribute='name')|list }} {{ words|map('upper')|list }} {{ users|map(attribute='city.name')|join(',') }} {{ users|map(attribute='missing', default='?')|list }} {{ l|map('string')|list }} {{ ['a,b']|map('replace', ',', ';')|list }} {{ nested|map(attribute=0)|list }} {{ nested|map('first')|list }} {{ nested|map(attribute='0')|list }}
{{ words|map|list }}
{{ words|map('nofilter')|list }}
{{ users|map(attribute='missing')|list }}
{{ l|max }} {{ l|min }} {{ words|max }} {{ words|min }} {{ words|max(case_sensitive=true) }} {{ users|max(attribute='age')|attr('x') is defined }} {{ (users|min(attribute='age')).name }} {{ []|max }}| {{ ['a', 'B']|min }} {{ ['a', 'B']|min(true) }}
{{ [1, 'a']|max }}
{{ d|pprint }} {{ 'a'|pprint }} {{ [1, 'x']|pprint }} {{ 1.0|pprint }}
{{ l|random in l }}
{{ l|reject('odd')|list }} {{ [0, 1, '', 'a', none]|reject|list }} {{ [1,2,3,4]|reject('divisibleby', 2)|list }} {{ [1,2,3]|reject('gt', 1)|list }}
{{ users|rejectattr('on')|map(attribute='name')|list }} {{ users|rejectattr('age', 'equalto', 30)|map(attribute='name')|list }} {{ users|rejectattr('age', '==', 30)|map(attribute='name')|list }}
{{ 'aaa'|replace('a', 'b') }} {{ 'aaa'|replace('a', 'b', 2) }} {{ 'abc'|replace('', '-') }} {{ 5|replace('5', '6') }} {{ 'aaa'|replace(old='a', new='c', count=1) }}
{{ 'abc'|reverse }} {{ l|reverse|list }} {{ (1,2)|reverse|list }} {{ range(3)|reverse|list }}
{{ d|reverse|list }}
{{ 5|reverse }}
{{ 42.55|round }} {{ 42.55|round(1) }} {{ 42.55|round(1, 'floor') }} {{ 42.55|round(method='ceil') }} {{ 42|round }} {{ 2.5|round }} {{ 3.5|round }} {{ -2.5|round }} {{ 1234|round(-2) }} {{ 2.675|round(2) }} {{ 42.4|round|int }} {{ 0.5|round }} {{ 1.005|round(2) }} {{ 1250.0|round(-2) }}
{{ 1|round(1, 'nothing') }}
{{ 'a'|round }}
{{ html|safe }} {{ ('<'|safe) + '>' }} {{ '<'|escape + '>' }} {{ ['<']|join('>') }} {{ 'a'|safe|upper }} {{ ('<'|escape)|length }} {{ '<'|escape|escape }} {{ ('a'|safe) is escaped }} {{ 'a' is escaped }} {{ '<'|e ~ '<' }}
{{ l|select('odd')|list }} {{ [0, 1, '', 'a', none]|select|list }} {{ [1,2,3,4]|select('divisibleby', 2)|list }} {{ words|select('in', ['Apple'])|list }} {{ words|select('string')|list|length }} {{ [1,none,undefined_thing]|select('defined')|list }}
{{ l|select('nothing')|list }}
{{ users|selectattr('on')|map(attribute='name')|list }} {{ users|selectattr('name', 'equalto', 'bob')|list|length }} {{ users|selectattr('city.name', 'eq', 'Rome')|list|length }} {{ users|selectattr('missing', 'defined')|list }} {{ users|selectattr('missing', 'undefined')|list|length }} {{ users|selectattr('age', 'lt', 30)|map(attribute='name')|first }} {{ users|selectattr('name', 'in', ['Ann', 'Cid'])|list|length }}
{{ range(10)|slice(3)|list }} {{ [1,2,3,4]|slice(3, 'x')|list }} {{ [1]|slice(3)|list }}
{{ l|sort }} {{ l|sort(reverse=true) }} {{ words|sort }} {{ words|sort(case_sensitive=true) }} {{ users|sort(attribute='name')|map(attribute='name')|list }} {{ users|sort(attribute='age,name')|map(attribute='name')|list }} {{ users|sort(true, attribute='age')|map(attribute='name')|list }} {{ d|sort }} {{ 'cab'|sort }} {{ [2.5, 1, true]|sort }}
{{ [1, 'a']|sort }}
{{ [none, 1]|sort }}
{{ users|sort }}
{{ 5|string ~ 'x' }} {{ none|string }} {{ l|string|length }}
{{ '<p>a  b</p> <!-- c -->d'|striptags }} {{ '&lt;x&gt; a\n b'|striptags }}
{{ l|sum }} {{ users|sum(attribute='age') }} {{ [1.5, 2]|sum }} {{ l|sum(start=10) }} {{ []|sum }} {{ users|sum('age', 5) }}
{{ ['a']|sum }}
{{ 'hello world'|title }} {{ 'HELLO-world (foo) <bar>'|title }} {{ "it's"|title }} {{ 5|title }} {{ 'a_b c.d [e {f'|title }}
{{ '  x '|trim }}|{{ 'xxaxx'|trim('x') }} {{ '-- a'|trim('- ') }}|{{ 5|trim }}
{{ 'foo bar baz qux'|truncate(9) }} {{ 'foo bar baz qux'|truncate(9, true) }} {{ 'foo bar baz qux'|truncate(11) }} {{ 'foo bar baz qux'|truncate(11, false, '...', 0) }} {{ 'foobar'|truncate(3, true, '') }} {{ 'short'|truncate }}
{{ 'foo'|truncate(1) }}
{{ [1, 2, 1, 'a', 'A']|unique|list }} {{ words|unique|list }} {{ words|unique(case_sensitive=true)|list }} {{ users|unique(attribute='age')|map(attribute='name')|list }}
{{ 'abc'|upper }} {{ 5|upper }} {{ none|upper }}
{{ 'a b&c=d/é'|urlencode }} {{ {'a': 1, 'b': 'x y'}|urlencode }} {{ [['a', 1], ['b', '/']]|urlencode }}
{{ 'see http://example.com now'|urlize }}
{{ 'a b  c d-e'|wordcount }} {{ "it's"|wordcount }} {{ ''|wordcount }} {{ 'é_1 x'|wordcount }}
{{ 'aaa bbb ccc ddd'|wordwrap(7) }} {{ 'aaabbbccc'|wordwrap(4) }} {{ 'aaabbb'|wordwrap(4, false) }} {{ 'aaa bbb'|wordwrap(3, wrapstring='|') }} {{ 'a-b-c dd'|wordwrap(3) }}
<a{{ {'class': 'x y', 'id': 5, 'no': none, 'q': '"<'}|xmlattr }}> {{ {'a': undefined_thing}|xmlattr }}|{{ {'a': 1}|xmlattr(false) }}
{{ {'a b': 1}|xmlattr }}
{{ d|tojson }} {{ l|tojson }} {{ s|tojson }} {{ none|tojson }} {{ true|tojson }} {{ 1.0|tojson }} {{ tiny|tojson }} {{ u|tojson }} {{ html|tojson }} {{ g|tojson }} {{ big|tojson }} {{ (1, 2)|tojson }} {{ 1e100|tojson }}
{{ deep|tojson(indent=2) }}
{{ deep|tojson(indent=4, ensure_ascii=true) }}
{{ u|tojson(ensure_ascii=true) }} {{ u|tojson(true) }} {{ "\x01\x1f\x7f\b\f\n\r\t\"\\/"|tojson }}
{{ d|tojson(sort_keys=true) }} {{ d|tojson(separators=(',', ':')) }} {{ d|tojson(indent=none) }} {{ l|tojson(indent=0) }} {{ []|tojson(indent=2) }} {{ {}|tojson(indent=2) }} {{ l|tojson(indent='--') }} {{ l|tojson(indent=1, separators=(';', '=')) }}
{{ {1: 'a', none: 'b', true: 'c', 2.5: 'd'}|tojson }}
{{ {(1, 2): 'a'}|tojson }}
{{ range(3)|tojson }}
{{ 'nan'|float|tojson }} {{ 'inf'|float|tojson }}
{{ s|nofilter }}
{{ l | map('tojson') | join(' ') }}
{{ 'a' | upper() | lower | replace("a", "é") }}
{% filter upper %}abc {{ s }}{% endfilter %} {% filter replace('a', 'b') | upper %}aaa{% endfilter %}
{{ [3, 1]|sort|first }} {{ (d|dictsort)[0][0] }} {{ d|length > 3 }} {{ 'a'|upper == 'A' }} {{ 1 + '2'|int }} {{ 'x' ~ 'y'|upper }}
"""
)
# Tests.
add(
    r"""
{{ true is boolean }} {{ 1 is boolean }} {{ range is callable }} {{ 5 is callable }} {{ s is defined }} {{ zz is defined }} {{ zz is undefined }} {{ nil is defined }} {{ d.zz is defined }}
{{ 4 is divisibleby(2) }} {{ 4 is divisibleby 3 }} {{ 1 is eq 1 }} {{ 1 is equalto 1.0 }} {{ 'a' is escaped }} {{ 4 is even }} {{ 3 is even }} {{ 3 is odd }} {{ false is false }} {{ 0 is false }} {{ true is true }} {{ 1 is true }}
{{ 'upper' is filter }} {{ 'nofilter' is filter }} {{ 'odd' is test }} {{ 'nothing' is test }} {{ 1.5 is float }} {{ 1 is float }} {{ 2 is ge 2 }} {{ 3 is gt 2 }} {{ 3 is greaterthan 2 }} {{ 1 is in [1] }} {{ 'a' is in 'abc' }} {{ 1 is integer }} {{ true is integer }} {{ 1.0 is integer }}
{{ l is iterable }} {{ s is iterable }} {{ 5 is iterable }} {{ d is iterable }} {{ nil is iterable }} {{ zz is iterable }} {{ 1 is le 1 }} {{ 'a' is lower }} {{ 'A' is lower }} {{ 1 is lt 2 }} {{ 1 is lessthan 2 }} {{ d is mapping }} {{ l is mapping }} {{ 1 is ne 2 }} {{ none is none }} {{ zz is none }} {{ 0 is none }}
{{ 5 is number }} {{ 5.5 is number }} {{ true is number }} {{ '5' is number }} {{ none is sameas none }} {{ 1 is sameas 1 }} {{ true is sameas true }} {{ true is sameas 1 }} {{ l is sequence }} {{ s is sequence }} {{ d is sequence }} {{ 5 is sequence }} {{ zz is sequence }} {{ (1,) is sequence }} {{ range(2) is sequence }} {{ s is string }} {{ 5 is string }} {{ ('a'|safe) is string }} {{ 'A' is upper }} {{ 'a' is upper }}
{{ 1 is not none }} {{ not 1 is none }} {{ 1 is not 2 }}
{{ s is nothing }}
{{ 5 is even or 1 }} {{ 5 is odd and s is string }} {{ 2 is even == true }} {{ 1 is number is boolean }}
{{ 'a' is in ['a'] and 'b' is not in ['a'] }} {{ 1 is == 1 }} {{ 2 is > 1 }} {{ 1 is < 1 }} {{ 1 is != 2 }} {{ 1 is >= 1 }} {{ 1 is <= 0 }}
{{ 's' is even }}
{{ loop is defined }} {{ range is defined }} {{ namespace is defined }} {{ raise_exception is defined }} {{ strftime_now is defined }} {{ date_string is defined }} {{ bos_token is defined }} {{ bos_token is none }} {{ tools is defined }} {{ tools is none }} {{ caller is defined }} {{ self is defined }}
"""
)
# Functions.
add(
    r"""
{{ range(3)|list }} {{ range(1, 4)|list }} {{ range(5, 0, -2)|list }} {{ range(0)|list }} {{ range(3) }} {{ range(1, 10, 3) }} {{ range(2, 5)[1] }} {{ range(5)[-1] }} {{ 3 in range(5) }} {{ range(5)[1:3]|list }}
{{ range(1.5) }}
{{ range() }}
{{ range(1, 2, 0) }}
{{ range(100001)|length }}
{{ dict(a=1, b=2) }} {{ dict([('x', 1)]) }} {{ dict({'a': 1}, b=2) }} {{ dict() }}
{{ lipsum() | length > 0 }}
{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.current }}
{% set j = joiner('|') %}{{ j() }}a{{ j() }}b{{ j() }}c
{% set j = joiner() %}{{ j() }}a{{ j() }}b
{% set ns = namespace(x=1, y=[]) %}{{ ns.x }}{% set ns.x = ns.x + 1 %}{{ ns.x }}{% for i in l %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}{% set ns.z = 'new' %}{{ ns.z }}{{ ns.nothing }}|{{ ns['x'] }}
{% set ns = namespace({'a': 1}) %}{{ ns.a }}{% set ns.y = ns.a ~ 'b' %}{{ ns.y }}
{% set ns = namespace() %}{% set ns._x = 1 %}
{% set d.x = 1 %}
{{ raise_exception('no ' ~ n) }}
{{ strftime_now('%%') }} {{ strftime_now('%Y')|length }} {{ strftime_now('%d %b %Y')|length }}
{{ nofunction() }}
{{ d() }}
{{ s() }}
{{ dict.fromkeys(['a']) }}
{{ super() }}
"""
)
# Statements.
add(
    r"""
{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %}
{% for x in l %}{{ loop.previtem is defined }} {{ loop.nextitem is defined }} {{ loop.cycle('a', 'b') }} {{ loop.changed(x > 1) }};{% endfor %}
{% for x in [] %}a{% else %}b{% endfor %} {% for x in [1] %}a{% else %}b{% endfor %}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %} {% for k in d %}{{ k }}{% endfor %} {% for k, v in d|dictsort %}{{ k }}{{ v }}{% endfor %}
{% for a, b in [[1, 2], (3, 4)] %}{{ a }}{{ b }};{% endfor %} {% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %} {% for a, b in ['xy'] %}{{ a }}{{ b }}{% endfor %}
{% for a, b in [[1, 2, 3]] %}{{ a }}{% endfor %}
{% for a, b in [1] %}{{ a }}{% endfor %}
{% for x in l if x > 1 %}{{ x }}{{ loop.index }}{{ loop.length }}{% endfor %} {% for x in l if x > 9 %}x{% else %}none{% endfor %}
{% for x in range(10) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}
{% break %}
{% for x in l %}{% with y = x %}{% if y == 1 %}{% break %}{% endif %}{{ y }}{% endwith %}{% endfor %}
{% for x in l %}{% with y = x %}{% if y == 1 %}{% continue %}{% endif %}{{ y }}{% endwith %}{% endfor %}
{% for x in l %}{% set y %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endset %}{{ y }}{% endfor %}
{% for x in l %}{% generation %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% endgeneration %}{% endfor %}
{% for x in l %}{% with y = x %}{% for z in l %}{% if z == 1 %}{% break %}{% endif %}{{ z }}{% endfor %}{% endwith %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}
{% for x in l %}{% for y in l %}{% if y == 1 %}{% break %}{% endif %}{{ x }}{{ y }} {% endfor %}{% endfor %}
{% for x in [1] %}{% break %}{% else %}else{% endfor %}|{% for x in [] %}{% break %}{% else %}else{% endfor %}
{% for x in nested recursive %}{% if x is iterable %}[{{ loop(x) }}]{% else %}{{ x }}@{{ loop.depth }} {% endif %}{% endfor %}
{% for x in s %}{{ x }}.{% endfor %} {% for x in u %}{{ x }}.{% endfor %}
{% set x = 1 %}{% for i in l %}{% set x = i %}{{ x }}{% endfor %}{{ x }}
{% for i in l %}{% set y = i %}{% endfor %}{{ y }}|
{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}
{% if x is defined %}a{% else %}{% set x = 1 %}{% endif %}{{ x }}
{% set x, y = 1, 2 %}{{ x }}{{ y }} {% set (a, b) = [3, 4] %}{{ a }}{{ b }} {% set t = 1, 2 %}{{ t }}
{% set x, y = 1 %}
{% set x %}a{{ n }}b{% endset %}{{ x }}|{{ x|length }} {% set y | upper %}abc{% endset %}{{ y }} {{ x is string }} {{ x ~ '<' }}
{% set x %}  {% endset %}{{ x|length }}{{ 'e' if x else 'f' }}
{% if n > 5 %}a{% elif n > 3 %}b{% else %}c{% endif %} {% if no %}a{% elif yes %}b{% endif %} {% if no %}a{% endif %}|
{% macro f(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ f(1) }} {{ f(1, 3) }} {{ f(1, c='y') }} {{ f(b=5, a=4) }} {{ f() }}|{{ f(1, 2, 3) }}
{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}
{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, z=2) }}
{% macro f(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, 3, z=4) }}
{% macro f(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}
{% macro f(a) %}{{ a }}{{ n }}{{ caller is defined }}{% endmacro %}{{ f.name }} {{ f.arguments }} {{ f.catch_kwargs }} {{ f.catch_varargs }} {{ f.caller }} {{ f(1) }}
{% macro f(a) %}{{ a }}[{{ caller() }}]{% endmacro %}{% call f(1) %}body{{ n }}{% endcall %}
{% macro f() %}{{ caller(1, 2) }}{% endmacro %}{% call(a, b) f() %}{{ a }}-{{ b }}{% endcall %}
{% macro fact(n) %}{% if n <= 1 %}1{% else %}{{ n * fact(n - 1)|int }}{% endif %}{% endmacro %}{{ fact(5) }}
{% macro f() %}{% set q = 5 %}{{ q }}{% endmacro %}{{ f() }}{{ q }}|
{% set q = 1 %}{% macro f() %}{{ q }}{% endmacro %}{% set q = 2 %}{{ f() }}
{% for i in l %}{% macro f() %}{{ i }}{% endmacro %}{{ f() }}{% endfor %}
{% macro f(x) %}{{ x }}{% endmacro %}{{ f('<')|length }}{{ f('a') ~ 'b' }}{{ f('a') == 'a' }}{{ f(' a ').strip() }}{{ f(1) + 'x' }}{{ f is callable }}
{% macro f(x, y) %}{{ y is defined }}{{ y }}{% endmacro %}{{ f(1) }}
{{ f(1) }}{% macro f(x) %}{{ x }}{% endmacro %}
{% macro f(x=1, y) %}{% endmacro %}
{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a }}| {% with %}{% set z = 1 %}{{ z }}{% endwith %}{{ z }}|
{% with a = 1, b = a %}{{ b }}{% endwith %}|
{% block x %}in{{ n }}{% endblock %} {% block y %}a{% endblock y %}
{% raw %}{{ not }} {% raw %}{% endraw %} {%- raw -%} x {{ y }} {%- endraw -%} z
{# comment {{ x }} #}a{#- c -#} b {# multi
a {%- if true %} b {%- endif %} c
a {% if true -%} b {% endif -%} c
a{{- ' b ' -}} c
{% generation %}x{{ n }}{% endgeneration %} {%- generation -%} y {%- endgeneration %}
{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}
{% generation %}{% set inner = 1 %}{{ inner }}{% endgeneration %}{{ inner }}|
{% set ns = namespace(a=0) %}{% generation %}{% set ns.a = 5 %}{% endgeneration %}{{ ns.a }}
{% for i in l %}{% generation %}{{ loop.index }}{{ i }}{% endgeneration %}{% endfor %}
{% do l.append(1) %}
{% include 'x' %}
{% extends 'x' %}
{% import 'x' as y %}
{% from 'x' import y %}
{% autoescape true %}{{ html }}{% endautoescape %}
{% autoescape false %}{{ html }}{% endautoescape %}
{% trans %}x{% endtrans %}
{% debug %}
{% if %}
{% for %}{% endfor %}
{% endif %}
{% if true %}
{{ n
{{ n }
{% n %}
{{ }}
{{ n n }}
{{ 'abc }}
{{ (1 }}
{{ [1, 2 }}
{% set 1 = 2 %}
{% set none = 2 %}
{% set loop = 2 %}{{ loop }}
{% for loop in l %}{% endfor %}
{% if n == 7 %}a{% endif %}{% if not n == 7 and yes %}b{% endif %}
{{ {'a': 1, 'b': {'c': [1, 2,],},}.b.c[1] }} {{ [1, 2,] }} {{ (1, 2,) }}
{{ "%s" % n }} {{ n|string + "x" }}
{{ messages[0].role == 'user' and messages[-1]['content'] }} {{ messages|length - 1 }} {{ messages[1:]|length }} {{ messages[:-1]|map(attribute='role')|list }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ (messages | last).content }} {{ messages|first|tojson }}
{{ messages }}
{{ l|map('nothing') }}
{{ dict(a=1).items()|list }} {{ {'a': {'b': 1}}.a.b }} {{ {}.x is defined }}
{{ ns is defined }}{% set ns = namespace(first=true) %}{% for m in messages %}{% if ns.first %}F{% set ns.first = false %}{% endif %}{{ m.role }}{% endfor %}
{{ l.sort() }}
{% set x = l %}{{ x.insert(0, 1) }}
{{ [1, 2, 3] | map('multiply', 2) | list }}
{{ s.format }}
{{ loop }}
{{ "a\
b" }}
{{ 1if 1else 2 }}
{{ '' if n is defined and n is not none else 'x' }}|
{% set a = [1] %}{% set b = a + [2] %}{{ a }}{{ b }}
{% set x = 'a' if yes else 'b' %}{{ x }} {% set f = l|length %}{{ f }} {% set q = messages[0]['content'] | trim %}{{ q }}
{% set x = none %}{{ x }}{{ x is none }}{% set x = undefined_thing %}{{ x is defined }}|
{{ x.y if x is defined else 'undef' }} {{ (x is defined) and x.y }} {{ x is defined and x.y is defined }}
{{ s is string and s | length > 3 }} {{ s is mapping or l is sequence and not no }}
{{ d.a is string }} {{ d is mapping and 'a' in d and d['a'] }} {{ d is not string and d is iterable }}
{% if messages[0]['role'] == 'system' %}x{% else %}y{% endif %} {% if (messages[0].role == 'user') != (0 % 2 == 0) %}x{% else %}y{% endif %}
{{ [1,2,3]|sum / 3 }} {{ (l|length) * 2 }} {{ l|length * 2 }} {{ 10 / 4 }} {{ 10 // 4 }} {{ (10 / 4)|int }} {{ 7 / 7 }}
{{ '\n'.join(words) }} {{ words|join('\n') }} {{ "\n" }}|{{ '\\n' }}
{{ u|upper }} {{ u|title }} {{ u|capitalize }} {{ u|length }} {{ u|reverse }} {{ u|list }} {{ u }}
"""
)

MULTILINE = [
    "line\n{% if true %}\n  a\n{% endif %}\nend\n",
    "  {% if true %}  \n  a\n  {% endif %}\nend",
    "\t{% for x in l %}\n{{ x }}\n\t{% endfor %}\n\n",
    "a\n\n{{ n }}\n\nb\n",
    "a\n\n\n",
    "a\n",
    "\n",
    "{{ n }}\n",
    "{% set x = 1 %}\n",
    "{% set x = 1 %}\n\n{{ x }}",
    "a {# c #}\nb",
    "  {# c #}\n  b",
    "a\n  {# c\n multi #}\nb",
    "  {{ n }}\n  b",
    "a{%- if true -%}\n  b\n{%- endif -%}\n c",
    "a\n  {%- if true %}\n  b\n  {%- endif %}\nc",
    "a\n  {%+ if true %}\n  b\n  {%+ endif %}\nc",
    "a\n{% if true +%}\nb\n{% endif +%}\nc",
    "a\n  {% if true %}b{% endif %}\nc",
    "a  {% if true %}\nb{% endif %}",
    "{% if true %}\r\na\r\n{% endif %}\r\nb\r\n",
    "a\r\nb\rc\n{{ n }}\r\n",
    "{{- n -}}  \n x",
    "{{ n -}}  \n x",
    "x  \n {{- n }}",
    "{%- for x in l -%}\n  {{ x }}\n{%- endfor -%}\n",
    "{% for x in l %}\n{{ x }}{% if not loop.last %},{% endif %}\n\n{% endfor %}",
    "{% macro f(x) %}\n  {{ x }}\n{% endmacro %}\n{{ f(1) }}{{ f(2) }}|",
    "{% macro f(x) -%}\n  {{ x }}\n{%- endmacro %}\n{{ f(1) }}{{ f(2) }}|",
    "{% set x %}\na\n{% endset %}\n[{{ x }}]",
    "{% raw %}\n {{ x }}\n{% endraw %}\nb",
    "  {% raw %}\n {{ x }}\n  {% endraw %}\nb",
    "  {%- raw %}  {{ x }}  {% endraw -%}  \nb",
    "a\n{% generation %}\nb\n{% endgeneration %}\nc",
    "{#- a -#}\n\n x {#- b #}\n y",
    "  {#- a #}\n x",
    "{# a -#}\n x",
    "# not a comment\n## nor this\n% nor this\n",
    "{{ 'a\nb' }}\nc",
    "{{ \"multi\nline\" }}",
    "{{\n n\n}}\n{%\nif\ntrue\n%}x{%\nendif\n%}",
    "{{ n }}{{ n }}\n{{ n }}",
    "\n\n{% if true %}\n\n\na\n{% endif %}\n\n",
    "   {% if true %}{% if true %}\n  x\n   {% endif %}{% endif %}\n",
    "a \t{%- set x = 1 %}\nb",
    "{{ l }} \n\n {%- set x = 1 -%} \n\n {{ l }}",
    "{% for x in l %}\n    {{- x }}\n{% endfor %}\n",
    "{% for x in l -%}\n    {{ x }}\n{% endfor -%}\n",
    "é\n  {% if true %}\né\n  {% endif %}",
    "{% if true %}\n{% endif %}\n{% if true %}\n{% endif %}\nx",
    "{%if true%}a{%endif%}",
    "{%-if true-%} a {%-endif-%} b",
    "{{-n-}} b",
    "{{n}}{{'a'}}{{ {'a':1}['a'] }}{{ {'a': {'b': 1}} }}",
    "a{% raw -%}  \n x {%- endraw %} b",
    "{% block a %}\nx\n{% endblock %}\ny",
    "{%- set ns = namespace(x=0) -%}\n{%- for i in range(3) -%}\n{%- set ns.x = ns.x + i -%}\n{{- ns.x }},\n{%- endfor -%}\n",
    "{% call(x) f() %}{% endcall %}",
    "{{ '{{ x }}' }}{{ '{% x %}' }}{{ '}}' }}{{ \"%}\" }}",
    "{% if true %}a{# x #}{% endif %} {#}#}",
    "{{ '#}' }}{# {{ '#}' }}",
    "unclosed {# comment",
    "unclosed {% raw %}",
    "{% raw %}{% endraw %}",
    "a\u2028b\x0bc\x85d\n",
    "x\n  {% for i in [1,2] %}  \n  - {{ i }}\n  {% endfor %}  \n",
]

CASES = E_ + MULTILINE
# Each once.
CASES = list(dict.fromkeys(CASES))

from lists import DIFFERENT, LENIENT, REFUSED  # noqa: E402

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather \"now\" in a city, in °C",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Its name"},
                    "unit": {"type": "string", "enum": ["C", "F"]},
                    "days": {"type": ["integer", "null"], "default": 1},
                },
                "required": ["city"],
            },
        },
    }
]
USER = {"role": "user", "content": "Hi <there>, it's \"me\" ☃"}
SYSTEM = {"role": "system", "content": "  You are terse.\n"}
ASSISTANT = {"role": "assistant", "content": "Hello!"}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"type": "function", "id": "call12345", "function": {"name": "get_weather", "arguments": {"city": "Rome"}}}
    ],
}
RESULT = {"role": "tool", "content": "{\"temp\": 21.5}", "name": "get_weather", "tool_call_id": "call12345"}
BASE = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "tools": None,
    "documents": None,
    "add_generation_prompt": True,
}


def talk(*messages, **more):
    return {**BASE, "messages": list(messages), **more}


CONVERSATIONS = {
    "one": talk(USER),
    "system": talk(SYSTEM, USER),
    "turns": talk(SYSTEM, USER, ASSISTANT, USER),
    "ended": talk(USER, ASSISTANT, add_generation_prompt=False),
    "tools": talk(SYSTEM, USER, tools=TOOLS),
    "called": talk(USER, CALL, RESULT, ASSISTANT, USER, tools=TOOLS),
    "thinking": talk(
        USER,
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes", "reasoning_content": "hm"},
        USER,
        enable_thinking=False,
    ),
    "parts": talk({"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image"}]}),
    "wrong": talk(ASSISTANT, ASSISTANT),
    "none": talk(),
}
