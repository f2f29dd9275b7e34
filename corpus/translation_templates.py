"""Sentence pair -> training text: the eleven translation templates of Marco-LLM's Table 13, in our own words."""
import hashlib

from corpus.read import Document

# {src} and {tgt} are language names, {x} is the sentence, {y} its translation
TEMPLATES = {
    "A": "{src} phrase: {x}\n{tgt} phrase: {y}",
    "B": "{src} text: {x}\n{tgt} text: {y}",
    "C": "Translate the text from {src} to {tgt}.\n{src} text: {x}\n{tgt} text: {y}",
    "D": "Translate the words from {src} to {tgt}.\n{src} words: {x}\n{tgt} words: {y}",
    "E": "Convert the phrase from {src} to {tgt}.\n{src} phrase: {x}\n{tgt} phrase: {y}",
    "F": "Render the {src} sentence \"{x}\" in {tgt}: {y}",
    "G": "Provide the translation of the sentence \"{x}\" from {src} to {tgt}: {y}",
    "H": "Change the phrase \"{x}\" to {tgt}, the translated phrase is: {y}",
    "I": "Please change the sentence \"{x}\" to {tgt}, and the resulting translation is: {y}",
    "J": "Change the phrase \"{x}\" to {tgt}, resulting in: {y}",
    "K": "The sentence \"{x}\" in {src} means \"{y}\" in {tgt}.",
}
# The same templates in other languages. Half of the texts whose first sentence is in such a language use them.
NATIVE_TEMPLATES = {"zh": {
    "A": "{src}短语：{x}\n{tgt}短语：{y}",
    "B": "{src}文本：{x}\n{tgt}文本：{y}",
    "C": "请把文本从{src}翻译成{tgt}。\n{src}文本：{x}\n{tgt}文本：{y}",
    "D": "请翻译词语，从{src}到{tgt}。\n{src}词语：{x}\n{tgt}词语：{y}",
    "E": "请把短语由{src}转换为{tgt}。\n{src}短语：{x}\n{tgt}短语：{y}",
    "F": "用{tgt}表达{src}句子“{x}”：{y}",
    "G": "给出句子“{x}”从{src}到{tgt}的译文：{y}",
    "H": "把短语“{x}”改成{tgt}，译出的短语是：{y}",
    "I": "请把句子“{x}”改成{tgt}，译文是：{y}",
    "J": "把短语“{x}”变成{tgt}：{y}",
    "K": "{src}句子“{x}”用{tgt}说就是“{y}”。",
}}
_CHINESE_NAMES = """
    en英语 zh中文 ar阿拉伯语 de德语 es西班牙语 fr法语 ko韩语 ja日语 pt葡萄牙语 tr土耳其语 bn孟加拉语 he希伯来语 id印尼语
    it意大利语 ms马来语 nl荷兰语 pl波兰语 ru俄语 th泰语 uk乌克兰语 ur乌尔都语 vi越南语 cs捷克语 el希腊语 hu匈牙利语
    kk哈萨克语 ro罗马尼亚语 az阿塞拜疆语 ne尼泊尔语"""
NATIVE_NAMES = {"zh": {word[:2]: word[2:] for word in _CHINESE_NAMES.split()}}


def format_pair(doc: Document, src: str, tgt: str, codes: tuple = (None, None)) -> None:
    """Replace the text of a pair by one template, filled in one direction.

    A hash of the pair chooses template and direction, so the text does not depend on the order of files or on workers.
    src, tgt: English names of the two languages. codes: their codes; without them all texts use the English templates.
    """
    x, y = doc.text, doc.more["target"]
    src_code, tgt_code = codes
    h = hashlib.blake2b(f"{src}\t{tgt}\t{x}\t{y}".encode(), digest_size=8).digest()
    if h[0] & 1:
        src, tgt, x, y, src_code, tgt_code = tgt, src, y, x, tgt_code, src_code
    templates, names = TEMPLATES, NATIVE_NAMES.get(src_code, {})
    if h[2] & 1 and src_code in names and tgt_code in names:
        src, tgt, templates = names[src_code], names[tgt_code], NATIVE_TEMPLATES[src_code]
    template = list(templates.values())[h[1] % len(templates)]
    doc.text = template.format(src=src, tgt=tgt, x=x, y=y)
