"""The languages of BayLing 2's star: what English and Chinese call them, and their FLORES-200 codes.

BayLing 2 (arXiv 2411.16300) speaks of more than 100 languages; its list was not to be found, so these are FLORES-200's, without
second scripts and most regional forms. Keys are ISO 639-1 codes, or 639-3 where there is none. FLORES names one form of a
macrolanguage (arb_Arab, zsm_Latn, azj_Latn); the name here is the one that people use.
"""
HUBS = ("en", "zh")  # the pivots: only they have native instructions, and each is bound to every other language

NAMES = {row.split()[0]: tuple(row.split("|")[1:]) for row in """
en |English|英语|eng_Latn
zh |Chinese|中文|zho_Hans
ace |Acehnese|亚齐语|ace_Latn
af |Afrikaans|南非荷兰语|afr_Latn
ak |Akan|阿肯语|aka_Latn
am |Amharic|阿姆哈拉语|amh_Ethi
ar |Arabic|阿拉伯语|arb_Arab
as |Assamese|阿萨姆语|asm_Beng
ast |Asturian|阿斯图里亚斯语|ast_Latn
awa |Awadhi|阿瓦德语|awa_Deva
ay |Aymara|艾马拉语|ayr_Latn
az |Azerbaijani|阿塞拜疆语|azj_Latn
ba |Bashkir|巴什基尔语|bak_Cyrl
ban |Balinese|巴厘语|ban_Latn
be |Belarusian|白俄罗斯语|bel_Cyrl
bem |Bemba|本巴语|bem_Latn
bg |Bulgarian|保加利亚语|bul_Cyrl
bho |Bhojpuri|博杰普尔语|bho_Deva
bjn |Banjar|班贾尔语|bjn_Latn
bm |Bambara|班巴拉语|bam_Latn
bn |Bengali|孟加拉语|ben_Beng
bo |Tibetan|藏语|bod_Tibt
bs |Bosnian|波斯尼亚语|bos_Latn
bug |Buginese|布吉语|bug_Latn
ca |Catalan|加泰罗尼亚语|cat_Latn
ceb |Cebuano|宿务语|ceb_Latn
ckb |Central Kurdish|中库尔德语|ckb_Arab
crh |Crimean Tatar|克里米亚鞑靼语|crh_Latn
cs |Czech|捷克语|ces_Latn
cy |Welsh|威尔士语|cym_Latn
da |Danish|丹麦语|dan_Latn
de |German|德语|deu_Latn
din |Dinka|丁卡语|dik_Latn
dz |Dzongkha|宗卡语|dzo_Tibt
ee |Ewe|埃维语|ewe_Latn
el |Greek|希腊语|ell_Grek
eo |Esperanto|世界语|epo_Latn
es |Spanish|西班牙语|spa_Latn
et |Estonian|爱沙尼亚语|est_Latn
eu |Basque|巴斯克语|eus_Latn
fa |Persian|波斯语|pes_Arab
ff |Fulah|富拉语|fuv_Latn
fi |Finnish|芬兰语|fin_Latn
fj |Fijian|斐济语|fij_Latn
fo |Faroese|法罗语|fao_Latn
fon |Fon|丰语|fon_Latn
fr |French|法语|fra_Latn
fur |Friulian|弗留利语|fur_Latn
ga |Irish|爱尔兰语|gle_Latn
gd |Scottish Gaelic|苏格兰盖尔语|gla_Latn
gl |Galician|加利西亚语|glg_Latn
gn |Guarani|瓜拉尼语|grn_Latn
gu |Gujarati|古吉拉特语|guj_Gujr
ha |Hausa|豪萨语|hau_Latn
he |Hebrew|希伯来语|heb_Hebr
hi |Hindi|印地语|hin_Deva
hne |Chhattisgarhi|恰蒂斯加尔语|hne_Deva
hr |Croatian|克罗地亚语|hrv_Latn
ht |Haitian Creole|海地克里奥尔语|hat_Latn
hu |Hungarian|匈牙利语|hun_Latn
hy |Armenian|亚美尼亚语|hye_Armn
id |Indonesian|印度尼西亚语|ind_Latn
ig |Igbo|伊博语|ibo_Latn
ilo |Ilocano|伊洛卡诺语|ilo_Latn
is |Icelandic|冰岛语|isl_Latn
it |Italian|意大利语|ita_Latn
ja |Japanese|日语|jpn_Jpan
jv |Javanese|爪哇语|jav_Latn
ka |Georgian|格鲁吉亚语|kat_Geor
kab |Kabyle|卡拜尔语|kab_Latn
kac |Jingpho|景颇语|kac_Latn
kam |Kamba|卡姆巴语|kam_Latn
kea |Kabuverdianu|佛得角克里奥尔语|kea_Latn
kg |Kongo|刚果语|kon_Latn
ki |Kikuyu|基库尤语|kik_Latn
kk |Kazakh|哈萨克语|kaz_Cyrl
km |Khmer|高棉语|khm_Khmr
kmb |Kimbundu|金邦杜语|kmb_Latn
kn |Kannada|卡纳达语|kan_Knda
ko |Korean|韩语|kor_Hang
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
ms |Malay|马来语|zsm_Latn
mt |Maltese|马耳他语|mlt_Latn
my |Burmese|缅甸语|mya_Mymr
nb |Norwegian Bokmål|书面挪威语|nob_Latn
ne |Nepali|尼泊尔语|npi_Deva
nl |Dutch|荷兰语|nld_Latn
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
pl |Polish|波兰语|pol_Latn
prs |Dari|达里语|prs_Arab
ps |Pashto|普什图语|pbt_Arab
pt |Portuguese|葡萄牙语|por_Latn
qu |Quechua|克丘亚语|quy_Latn
rn |Rundi|隆迪语|run_Latn
ro |Romanian|罗马尼亚语|ron_Latn
ru |Russian|俄语|rus_Cyrl
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
sw |Swahili|斯瓦希里语|swh_Latn
szl |Silesian|西里西亚语|szl_Latn
ta |Tamil|泰米尔语|tam_Taml
te |Telugu|泰卢固语|tel_Telu
tg |Tajik|塔吉克语|tgk_Cyrl
th |Thai|泰语|tha_Thai
ti |Tigrinya|提格利尼亚语|tir_Ethi
tk |Turkmen|土库曼语|tuk_Latn
tl |Tagalog|他加禄语|tgl_Latn
tn |Tswana|茨瓦纳语|tsn_Latn
tpi |Tok Pisin|托克皮辛语|tpi_Latn
tr |Turkish|土耳其语|tur_Latn
ts |Tsonga|聪加语|tso_Latn
tt |Tatar|鞑靼语|tat_Cyrl
tum |Tumbuka|通布卡语|tum_Latn
tw |Twi|契维语|twi_Latn
ug |Uyghur|维吾尔语|uig_Arab
uk |Ukrainian|乌克兰语|ukr_Cyrl
umb |Umbundu|翁本杜语|umb_Latn
ur |Urdu|乌尔都语|urd_Arab
uz |Uzbek|乌兹别克语|uzn_Latn
vec |Venetian|威尼斯语|vec_Latn
vi |Vietnamese|越南语|vie_Latn
war |Waray|瓦瑞语|war_Latn
wo |Wolof|沃洛夫语|wol_Latn
xh |Xhosa|科萨语|xho_Latn
yi |Yiddish|意第绪语|ydd_Hebr
yo |Yoruba|约鲁巴语|yor_Latn
yue |Cantonese|粤语|yue_Hant
zu |Zulu|祖鲁语|zul_Latn
""".strip().split("\n")}
SPELLED = {spelled: code for code, row in NAMES.items() for spelled in (code, row[2].lower())}


def code_of(name):
    """The code that a file or a list means: "kk" of "kk", "KK" and "kaz_Cyrl"; None if unknown."""
    return SPELLED.get(name.lower().replace("-", "_"))


# the prompts of BayLing's translation scripts (scripts/translate.py), and ours in their manner for the other categories
PROMPTS = {
    "en": {"translation": "Provide the {tgt} translation for this sentence: {x}", "question": "Answer this question in {tgt}: {x}",
           "summary": "Summarize this text in {tgt}: {x}", "explanation": "Explain in {tgt} what this means: {x}"},
    "zh": {"translation": "提供这句话的{tgt}翻译：{x}", "question": "用{tgt}回答这个问题：{x}", "summary": "用{tgt}概括这段文字：{x}",
           "explanation": "用{tgt}解释它的含义：{x}"},
}
