"""Renders chats by chat templates as Hugging Face's `transformers` does, and records what comes out.

  make_templates.py               templates of our own, in the manner of those that models carry, into templates.json
  make_templates.py FOLDER FILE   the templates (*.jinja) in FOLDER into FILE, which is not committed

A template that refuses a chat has null in the place of its text. Run by `make references` and `make
real-templates`.
"""

import json
import pathlib
import sys

from transformers.utils.chat_template_utils import _compile_jinja_template as compiled

BOS, EOS = "<s>", "</s>"

CHATML = """{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are a bee.<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(last=messages|length - 1, multi=false) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if not ns.multi and message.role == "user" and message.content is string and not(message.content.startswith('<r>') and message.content.endswith('</r>')) %}
        {%- set ns.multi = true %}{%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content %}
        {%- if '</think>' in content %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>' + message.role + '\\n' + (content if loop.index0 > ns.last else content|trim) + '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}{{- message.content }}{{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

HEADERS = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{#- The system's words come first, whoever says them. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}{{- "Environment: ipython\\n" }}{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable and message.content is not string %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content | tojson(indent=2) if false else message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

INST = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages if message.role != "tool" %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("After the optional system message, roles must alternate user/assistant") }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool" %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content|tojson + "}[/TOOL_RESULTS]" }}
    {%- else %}
        {{- raise_exception("Only user, assistant and tool roles are supported") }}
    {%- endif %}
{%- endfor %}
"""

TURNS = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first_user_prefix = messages[0]['content'] + '

' %}{% set loop_messages = messages[1:] %}{% else %}{% set first_user_prefix = "" %}{% set loop_messages = messages %}{% endif %}
{% for message in loop_messages %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {% endif %}
    {% if (message['role'] == 'assistant') %}{% set role = "model" %}{% else %}{% set role = message['role'] %}{% endif %}
    {{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
    {% if message['content'] is string %}
        {{ message['content'] | trim }}
    {% else %}
        {{ raise_exception("Invalid content type") }}
    {% endif %}
    {{ '<end_of_turn>\\n' }}
{% endfor %}
{% if add_generation_prompt %}
    {{'<start_of_turn>model\\n'}}
{% endif %}
"""

BARS = """{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>
' + message['content'] + '<|end|>
'}}{% elif message['role'] == 'user' %}{{'<|user|>
' + message['content'] + '<|end|>
'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>
' + message['content'] + '<|end|>
'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>
' }}{% else %}{{ eos_token }}{% endif %}"""

TEMPLATES = dict(chatml=CHATML, headers=HEADERS, inst=INST, turns=TURNS, bars=BARS)


def message(role, content):
    return dict(role=role, content=content)


ODD = ["", " ", "\n\n x \n", "{{ 7 * 7 }}{% if %}", "\"quotes\" & <tags> 'more' \\n", "Grüße 蜂蜜 🐝👩‍🚀\u200b", "tab\tand\u00a0nbsp",
       "<think>\nhm\n</think>\n\nyes", "<r>inner</r>", "a" * 300, "\u2028line\u0000null", "</s><|im_end|>[/INST]<end_of_turn>"]


def chats():
    user, bot = message("user", "What does a bee eat?"), message("assistant", " Nectar.\n")
    yield [user]
    yield [message("system", "Be brief."), user]
    yield [message("system", "  Be brief.\n"), user, bot, message("user", "And pollen?")]
    yield [user, bot, message("user", "Really?"), bot, message("user", "Thanks.")]
    yield [user, bot, message("tool", '{"n": 1, "text": "ok <b>"}'), message("user", "So?")]
    yield [user, bot, message("tool", "one"), message("tool", "two"), bot, message("user", "So?")]
    yield [user, user]
    yield [message("system", "a"), message("system", "b"), user]
    yield [user, bot]
    yield [bot, user]
    for text in ODD:
        yield [message("system", text), message("user", text), message("assistant", text), message("user", text)]


def rendered(template, chat):
    try:
        return template.render(messages=chat, tools=None, documents=None, add_generation_prompt=True,
                               bos_token=BOS, eos_token=EOS)
    except Exception:
        return None


def main():
    if len(sys.argv) == 3:
        files = sorted(pathlib.Path(sys.argv[1]).glob("*.jinja"))
        templates = {file.stem: file.read_text() for file in files}
        into = pathlib.Path(sys.argv[2])
    else:
        templates, into = TEMPLATES, pathlib.Path(__file__).parent / "templates.json"
    all_chats = list(chats())
    told = {}
    for name, source in templates.items():
        template = compiled(source)
        told[name] = dict(source=source, answers=[rendered(template, chat) for chat in all_chats])
    into.write_text(json.dumps(dict(bos=BOS, eos=EOS, chats=all_chats, templates=told), indent=1) + "\n")
    print(len(templates), "templates,", len(all_chats), "chats")


if __name__ == "__main__":
    main()
