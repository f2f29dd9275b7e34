"""The languages of BayLing 2: their names in English and Chinese, their FLORES-200 codes, and the prompts.

BayLing 2 (arXiv 2411.16300) covers more than 100 languages. We could not find its list, so these are FLORES-200's,
without second scripts and most regional forms. Keys are ISO 639-1 codes, or 639-3 where there is none. FLORES names one
form of a macrolanguage (arb_Arab, zsm_Latn, azj_Latn); the name here is the one in common use.
"""
from typing import NamedTuple

from configs.language_table import LANGUAGES

PIVOTS = ("en", "zh")  # only they have native instructions; each is paired with every other language


class Name(NamedTuple):
    en: str
    zh: str
    flores: str


# in the order of configs/language_table.py, which has their English names and FLORES codes
_IN_THE_TABLE = """
    en=英语 zh=中文 ar=阿拉伯语 de=德语 es=西班牙语 fr=法语 ko=韩语 ja=日语 pt=葡萄牙语 tr=土耳其语 bn=孟加拉语
    he=希伯来语 id=印度尼西亚语 it=意大利语 ms=马来语 nl=荷兰语 pl=波兰语 ru=俄语 th=泰语 uk=乌克兰语 ur=乌尔都语
    vi=越南语 cs=捷克语 el=希腊语 hu=匈牙利语 kk=哈萨克语 ro=罗马尼亚语 az=阿塞拜疆语 ne=尼泊尔语 hi=印地语
    sw=斯瓦希里语 yo=约鲁巴语 fi=芬兰语 te=泰卢固语"""
_OTHERS = """
ace |Acehnese|亚齐语|ace_Latn
af |Afrikaans|南非荷兰语|afr_Latn
ak |Akan|阿肯语|aka_Latn
am |Amharic|阿姆哈拉语|amh_Ethi
as |Assamese|阿萨姆语|asm_Beng
ast |Asturian|阿斯图里亚斯语|ast_Latn
awa |Awadhi|阿瓦德语|awa_Deva
ay |Aymara|艾马拉语|ayr_Latn
ba |Bashkir|巴什基尔语|bak_Cyrl
ban |Balinese|巴厘语|ban_Latn
be |Belarusian|白俄罗斯语|bel_Cyrl
bem |Bemba|本巴语|bem_Latn
bg |Bulgarian|保加利亚语|bul_Cyrl
bho |Bhojpuri|博杰普尔语|bho_Deva
bjn |Banjar|班贾尔语|bjn_Latn
bm |Bambara|班巴拉语|bam_Latn
bo |Tibetan|藏语|bod_Tibt
bs |Bosnian|波斯尼亚语|bos_Latn
bug |Buginese|布吉语|bug_Latn
ca |Catalan|加泰罗尼亚语|cat_Latn
ceb |Cebuano|宿务语|ceb_Latn
ckb |Central Kurdish|中库尔德语|ckb_Arab
crh |Crimean Tatar|克里米亚鞑靼语|crh_Latn
cy |Welsh|威尔士语|cym_Latn
da |Danish|丹麦语|dan_Latn
din |Dinka|丁卡语|dik_Latn
dz |Dzongkha|宗卡语|dzo_Tibt
ee |Ewe|埃维语|ewe_Latn
eo |Esperanto|世界语|epo_Latn
et |Estonian|爱沙尼亚语|est_Latn
eu |Basque|巴斯克语|eus_Latn
fa |Persian|波斯语|pes_Arab
ff |Fulah|富拉语|fuv_Latn
fj |Fijian|斐济语|fij_Latn
fo |Faroese|法罗语|fao_Latn
fon |Fon|丰语|fon_Latn
fur |Friulian|弗留利语|fur_Latn
ga |Irish|爱尔兰语|gle_Latn
gd |Scottish Gaelic|苏格兰盖尔语|gla_Latn
gl |Galician|加利西亚语|glg_Latn
gn |Guarani|瓜拉尼语|grn_Latn
gu |Gujarati|古吉拉特语|guj_Gujr
ha |Hausa|豪萨语|hau_Latn
hne |Chhattisgarhi|恰蒂斯加尔语|hne_Deva
hr |Croatian|克罗地亚语|hrv_Latn
ht |Haitian Creole|海地克里奥尔语|hat_Latn
hy |Armenian|亚美尼亚语|hye_Armn
ig |Igbo|伊博语|ibo_Latn
ilo |Ilocano|伊洛卡诺语|ilo_Latn
is |Icelandic|冰岛语|isl_Latn
jv |Javanese|爪哇语|jav_Latn
ka |Georgian|格鲁吉亚语|kat_Geor
kab |Kabyle|卡拜尔语|kab_Latn
kac |Jingpho|景颇语|kac_Latn
kam |Kamba|卡姆巴语|kam_Latn
kea |Kabuverdianu|佛得角克里奥尔语|kea_Latn
kg |Kongo|刚果语|kon_Latn
ki |Kikuyu|基库尤语|kik_Latn
km |Khmer|高棉语|khm_Khmr
kmb |Kimbundu|金邦杜语|kmb_Latn
kn |Kannada|卡纳达语|kan_Knda
kr |Kanuri|卡努里语|knc_Latn
ks |Kashmiri|克什米尔语|kas_Arab
ku |Northern Kurdish|北库尔德语|kmr_Latn
ky |Kyrgyz|吉尔吉斯语|kir_Cyrl
lb |Luxembourgish|卢森堡语|ltz_Latn
lg |Ganda|卢干达语|lug_Latn
li |Limburgish|林堡语|lim_Latn
lij |Ligurian|利古里亚语|lij_Latn
lmo |Lombard|伦巴第语|lmo_Latn
ln |Lingala|林加拉语|lin_Latn
lo |Lao|老挝语|lao_Laoo
lt |Lithuanian|立陶宛语|lit_Latn
ltg |Latgalian|拉特加莱语|ltg_Latn
lua |Luba-Kasai|卢巴-开赛语|lua_Latn
luo |Luo|卢奥语|luo_Latn
lus |Mizo|米佐语|lus_Latn
lv |Latvian|拉脱维亚语|lvs_Latn
mag |Magahi|摩揭陀语|mag_Deva
mai |Maithili|迈蒂利语|mai_Deva
mg |Malagasy|马尔加什语|plt_Latn
mi |Maori|毛利语|mri_Latn
min |Minangkabau|米南加保语|min_Latn
mk |Macedonian|马其顿语|mkd_Cyrl
ml |Malayalam|马拉雅拉姆语|mal_Mlym
mn |Mongolian|蒙古语|khk_Cyrl
mni |Manipuri|曼尼普尔语|mni_Beng
mos |Mossi|莫西语|mos_Latn
mr |Marathi|马拉地语|mar_Deva
mt |Maltese|马耳他语|mlt_Latn
my |Burmese|缅甸语|mya_Mymr
nb |Norwegian Bokmål|书面挪威语|nob_Latn
nn |Norwegian Nynorsk|新挪威语|nno_Latn
nso |Northern Sotho|北索托语|nso_Latn
nus |Nuer|努埃尔语|nus_Latn
ny |Chichewa|齐切瓦语|nya_Latn
oc |Occitan|奥克语|oci_Latn
om |Oromo|奥罗莫语|gaz_Latn
or |Odia|奥里亚语|ory_Orya
pa |Punjabi|旁遮普语|pan_Guru
pag |Pangasinan|邦阿西楠语|pag_Latn
pap |Papiamento|帕皮阿门托语|pap_Latn
prs |Dari|达里语|prs_Arab
ps |Pashto|普什图语|pbt_Arab
qu |Quechua|克丘亚语|quy_Latn
rn |Rundi|隆迪语|run_Latn
rw |Kinyarwanda|卢旺达语|kin_Latn
sa |Sanskrit|梵语|san_Deva
sat |Santali|桑塔利语|sat_Olck
sc |Sardinian|萨丁语|srd_Latn
scn |Sicilian|西西里语|scn_Latn
sd |Sindhi|信德语|snd_Arab
sg |Sango|桑戈语|sag_Latn
shn |Shan|掸语|shn_Mymr
si |Sinhala|僧伽罗语|sin_Sinh
sk |Slovak|斯洛伐克语|slk_Latn
sl |Slovenian|斯洛文尼亚语|slv_Latn
sm |Samoan|萨摩亚语|smo_Latn
sn |Shona|绍纳语|sna_Latn
so |Somali|索马里语|som_Latn
sq |Albanian|阿尔巴尼亚语|als_Latn
sr |Serbian|塞尔维亚语|srp_Cyrl
ss |Swati|斯瓦蒂语|ssw_Latn
st |Southern Sotho|南索托语|sot_Latn
su |Sundanese|巽他语|sun_Latn
sv |Swedish|瑞典语|swe_Latn
szl |Silesian|西里西亚语|szl_Latn
ta |Tamil|泰米尔语|tam_Taml
tg |Tajik|塔吉克语|tgk_Cyrl
ti |Tigrinya|提格利尼亚语|tir_Ethi
tk |Turkmen|土库曼语|tuk_Latn
tl |Tagalog|他加禄语|tgl_Latn
tn |Tswana|茨瓦纳语|tsn_Latn
tpi |Tok Pisin|托克皮辛语|tpi_Latn
ts |Tsonga|聪加语|tso_Latn
tt |Tatar|鞑靼语|tat_Cyrl
tum |Tumbuka|通布卡语|tum_Latn
tw |Twi|契维语|twi_Latn
ug |Uyghur|维吾尔语|uig_Arab
umb |Umbundu|翁本杜语|umb_Latn
uz |Uzbek|乌兹别克语|uzn_Latn
vec |Venetian|威尼斯语|vec_Latn
war |Waray|瓦瑞语|war_Latn
wo |Wolof|沃洛夫语|wol_Latn
xh |Xhosa|科萨语|xho_Latn
yi |Yiddish|意第绪语|ydd_Hebr
yue |Cantonese|粤语|yue_Hant
zu |Zulu|祖鲁语|zul_Latn
"""


def build_names():
    """{code: Name} of all languages, English and Chinese first."""
    names = {}
    for word in _IN_THE_TABLE.split():
        code, chinese = word.split("=")
        names[code] = Name(LANGUAGES[code].name, chinese, LANGUAGES[code].flores)
    for line in _OTHERS.strip().split("\n"):
        code, *columns = line.split("|")
        names[code.strip()] = Name(*columns)
    return names


NAMES = build_names()
CODES = {spelling: code for code, name in NAMES.items() for spelling in (code, name.flores.lower())}


def find_code(name: str) -> str | None:
    """The code of a language as written in files and lists: "kk" of "kk", "KK" and "kaz_Cyrl"; None if unknown."""
    return CODES.get(name.lower().replace("-", "_"))


# the prompts of BayLing's translation scripts (scripts/translate.py), and ours in their style for the other categories
PROMPTS = {
    "en": {"translation": "Provide the {tgt} translation for this sentence: {x}",
           "question": "Answer this question in {tgt}: {x}",
           "summary": "Summarize this text in {tgt}: {x}",
           "explanation": "Explain in {tgt} what this means: {x}"},
    "zh": {"translation": "提供这句话的{tgt}翻译：{x}",
           "question": "用{tgt}回答这个问题：{x}",
           "summary": "用{tgt}概括这段文字：{x}",
           "explanation": "用{tgt}解释它的含义：{x}"},
}
