"""Names and words in the benchmarks' prompts: languages, subjects, and a few words in each language.

They are lm-evaluation-harness 0.4.13's to the letter, mistakes included (XNLI's Arabic "no" is the word for a number):
another word is another prompt, and its score another number.
"""

from configs import language_table

# MMLU, and in translation MMMLU and Global-MMLU: {group: subjects}
MMLU = {group: subjects.split() for group, subjects in {
    "stem": """
        abstract_algebra anatomy astronomy college_biology college_chemistry college_computer_science
        college_mathematics college_physics computer_security conceptual_physics electrical_engineering
        elementary_mathematics high_school_biology high_school_chemistry high_school_computer_science
        high_school_mathematics high_school_physics high_school_statistics machine_learning
    """,
    "other": """
        business_ethics clinical_knowledge college_medicine global_facts human_aging management marketing
        medical_genetics miscellaneous nutrition professional_accounting professional_medicine virology
    """,
    "social_sciences": """
        econometrics high_school_geography high_school_government_and_politics high_school_macroeconomics
        high_school_microeconomics high_school_psychology human_sexuality professional_psychology public_relations
        security_studies sociology us_foreign_policy
    """,
    "humanities": """
        formal_logic high_school_european_history high_school_us_history high_school_world_history international_law
        jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory professional_law
        world_religions
    """,
}.items()}
# subject: its name in the prompt
CEVAL = {
    "accountant": "注册会计师", "advanced_mathematics": "高等数学", "art_studies": "艺术学",
    "basic_medicine": "基础医学", "business_administration": "工商管理",
    "chinese_language_and_literature": "中国语言文学", "civil_servant": "公务员",
    "clinical_medicine": "临床医学", "college_chemistry": "大学化学", "college_economics": "大学经济学",
    "college_physics": "大学物理", "college_programming": "大学编程", "computer_architecture": "计算机组成",
    "computer_network": "计算机网络", "discrete_mathematics": "离散数学", "education_science": "教育学",
    "electrical_engineer": "注册电气工程师", "environmental_impact_assessment_engineer": "环境影响评价工程师",
    "fire_engineer": "注册消防工程师", "high_school_biology": "高中生物", "high_school_chemistry": "高中化学",
    "high_school_chinese": "高中语文", "high_school_geography": "高中地理", "high_school_history": "高中历史",
    "high_school_mathematics": "高中数学", "high_school_physics": "高中物理",
    "high_school_politics": "高中政治", "ideological_and_moral_cultivation": "思想道德修养与法律基础",
    "law": "法学", "legal_professional": "法律职业资格", "logic": "逻辑学",
    "mao_zedong_thought": "毛泽东思想和中国特色社会主义理论体系概论", "marxism": "马克思主义基本原理",
    "metrology_engineer": "注册计量师", "middle_school_biology": "初中生物",
    "middle_school_chemistry": "初中化学", "middle_school_geography": "初中地理",
    "middle_school_history": "初中历史", "middle_school_mathematics": "初中数学",
    "middle_school_physics": "初中物理", "middle_school_politics": "初中政治",
    "modern_chinese_history": "近代史纲要", "operating_system": "操作系统", "physician": "医师资格",
    "plant_protection": "植物保护", "probability_and_statistics": "概率统计",
    "professional_tour_guide": "导游资格", "sports_science": "体育学", "tax_accountant": "税务师",
    "teacher_qualification": "教师资格", "urban_and_rural_planner": "注册城乡规划师",
    "veterinary_medicine": "兽医学",
}
# C-Eval's categories; a subject in none of them is "other"
CEVAL_GROUPS = {group: subjects.split() for group, subjects in {
    "stem": """
        computer_network operating_system computer_architecture college_programming college_physics college_chemistry
        advanced_mathematics probability_and_statistics discrete_mathematics electrical_engineer metrology_engineer
        high_school_mathematics high_school_physics high_school_chemistry high_school_biology middle_school_mathematics
        middle_school_biology middle_school_physics middle_school_chemistry veterinary_medicine
    """,
    "social_science": """
        college_economics business_administration marxism mao_zedong_thought education_science teacher_qualification
        high_school_politics high_school_geography middle_school_politics middle_school_geography
    """,
    "humanities": """
        modern_chinese_history ideological_and_moral_cultivation logic law chinese_language_and_literature art_studies
        professional_tour_guide legal_professional high_school_chinese high_school_history middle_school_history
    """,
}.items()}
CMMLU = {
    "agronomy": "农学", "anatomy": "解剖学", "ancient_chinese": "古汉语", "arts": "艺术学",
    "astronomy": "天文学", "business_ethics": "商业伦理", "chinese_civil_service_exam": "中国公务员考试",
    "chinese_driving_rule": "中国驾驶规则", "chinese_food_culture": "中国饮食文化",
    "chinese_foreign_policy": "中国外交政策", "chinese_history": "中国历史", "chinese_literature": "中国文学",
    "chinese_teacher_qualification": "中国教师资格", "clinical_knowledge": "临床知识",
    "college_actuarial_science": "大学精算学", "college_education": "大学教育学",
    "college_engineering_hydrology": "大学工程水文学", "college_law": "大学法律",
    "college_mathematics": "大学数学", "college_medical_statistics": "大学医学统计",
    "college_medicine": "大学医学", "computer_science": "计算机科学", "computer_security": "计算机安全",
    "conceptual_physics": "概念物理学", "construction_project_management": "建设工程管理",
    "economics": "经济学", "education": "教育学", "electrical_engineering": "电气工程",
    "elementary_chinese": "小学语文", "elementary_commonsense": "小学常识",
    "elementary_information_and_technology": "小学信息技术", "elementary_mathematics": "初等数学",
    "ethnology": "民族学", "food_science": "食品科学", "genetics": "遗传学", "global_facts": "全球事实",
    "high_school_biology": "高中生物", "high_school_chemistry": "高中化学", "high_school_geography": "高中地理",
    "high_school_mathematics": "高中数学", "high_school_physics": "高中物理学",
    "high_school_politics": "高中政治", "human_sexuality": "人类性行为", "international_law": "国际法学",
    "journalism": "新闻学", "jurisprudence": "法理学", "legal_and_moral_basis": "法律与道德基础",
    "logical": "逻辑学", "machine_learning": "机器学习", "management": "管理学", "marketing": "市场营销",
    "marxist_theory": "马克思主义理论", "modern_chinese": "现代汉语", "nutrition": "营养学",
    "philosophy": "哲学", "professional_accounting": "专业会计", "professional_law": "专业法学",
    "professional_medicine": "专业医学", "professional_psychology": "专业心理学",
    "public_relations": "公共关系", "security_study": "安全研究", "sociology": "社会学",
    "sports_science": "体育学", "traditional_chinese_medicine": "中医中药", "virology": "病毒学",
    "world_history": "世界历史", "world_religions": "世界宗教",
}
# OpenAI names the Japanese file JA-JP
MMMLU = {
    "ar_xy": "Arabic", "bn_bd": "Bengali", "de_de": "German", "es_la": "Spanish", "fr_fr": "French", "hi_in": "Hindi",
    "id_id": "Indonesian", "it_it": "Italian", "ja_jp": "Japanese", "ko_kr": "Korean",
    "pt_br": "Brazilian Portuguese", "sw_ke": "Swahili", "yo_ng": "Yoruba", "zh_cn": "Simplified Chinese"
}
# INCLUDE: its domains, then its languages
INCLUDE = {
    "arts_humanities": "Arts & Humanities", "driving_license": "Driving License",
    "professional_certification": "Professional certification", "stem": "STEM", "social_science": "Social Science",
    "applied_science": "Applied Science", "business_commerce": "Business & Commerce",
    "health_oriented_education": "Health oriented education", "general_knowledge": "General knowledge",
    "medical_license": "Medical License", "marine_license": "Marine License"
}
INCLUDE_LANGUAGES = """
    Albanian Arabic Armenian Azerbaijani Basque Belarusian Bengali Bulgarian Chinese Croatian Dutch Estonian Finnish
    French Georgian German Greek Hebrew Hindi Hungarian Indonesian Italian Japanese Kazakh Korean Lithuanian Malay
    Malayalam Nepali North_Macedonian Persian Polish Portuguese Russian Serbian Spanish Tagalog Tamil Telugu Turkish
    Ukrainian Urdu Uzbek Vietnamese
""".split()
# FLORES codes of the 122
BELEBELE = """
    acm_Arab afr_Latn als_Latn amh_Ethi apc_Arab arb_Arab arb_Latn ars_Arab ary_Arab arz_Arab asm_Beng azj_Latn
    bam_Latn ben_Beng ben_Latn bod_Tibt bul_Cyrl cat_Latn ceb_Latn ces_Latn ckb_Arab dan_Latn deu_Latn ell_Grek
    eng_Latn est_Latn eus_Latn fin_Latn fra_Latn fuv_Latn gaz_Latn grn_Latn guj_Gujr hat_Latn hau_Latn heb_Hebr
    hin_Deva hin_Latn hrv_Latn hun_Latn hye_Armn ibo_Latn ilo_Latn ind_Latn isl_Latn ita_Latn jav_Latn jpn_Jpan
    kac_Latn kan_Knda kat_Geor kaz_Cyrl kea_Latn khk_Cyrl khm_Khmr kin_Latn kir_Cyrl kor_Hang lao_Laoo lin_Latn
    lit_Latn lug_Latn luo_Latn lvs_Latn mal_Mlym mar_Deva mkd_Cyrl mlt_Latn mri_Latn mya_Mymr nld_Latn nob_Latn
    npi_Deva npi_Latn nso_Latn nya_Latn ory_Orya pan_Guru pbt_Arab pes_Arab plt_Latn pol_Latn por_Latn ron_Latn
    rus_Cyrl shn_Mymr sin_Latn sin_Sinh slk_Latn slv_Latn sna_Latn snd_Arab som_Latn sot_Latn spa_Latn srp_Cyrl
    ssw_Latn sun_Latn swe_Latn swh_Latn tam_Taml tel_Telu tgk_Cyrl tgl_Latn tha_Thai tir_Ethi tsn_Latn tso_Latn
    tur_Latn ukr_Cyrl urd_Arab urd_Latn uzn_Latn vie_Latn war_Latn wol_Latn xho_Latn yor_Latn zho_Hans zho_Hant
    zsm_Latn zul_Latn
""".split()
GLOBAL_MMLU = """
    am ar bn cs de el en es fa fil fr ha he hi id ig it ja ko ky lt mg ms ne nl ny pl pt ro ru si sn so sr sv sw te tr
    uk vi yo zh
""".split()
GLOBAL_MMLU_LITE = """
    ar bn de en es fr hi id it ja ko pt sw yo zh
""".split()
M_MMLU = """
    ar bn ca da de en es eu fr gu hi hr hu hy id is it kn ml mr nb ne nl pt ro ru sk sr sv ta te uk vi zh
""".split()
M_ARC = """
    ar bn ca da de es eu fr gu hi hr hu hy id it kn ml mr ne nl pt ro ru sk sr sv ta te uk vi zh
""".split()
M_HELLASWAG = """
    ar bn ca da de es eu fr gu hi hr hu hy id it kn ml mr ne nl pt ro ru sk sr sv ta te uk vi
""".split()
# because, therefore
XCOPA = {
    "et": ["sest", "seetõttu"], "ht": ["poukisa", "donk sa"], "id": ["karena", "maka"], "it": ["perché", "quindi"],
    "qu": ["imataq", "chaymi"], "sw": ["kwa sababu", "kwa hiyo"], "ta": ["காரணமாக", "எனவே"],
    "th": ["เพราะ", "ดังนั้น"], "tr": ["çünkü", "bu yüzden"], "vi": ["bởi vì", "vì vậy"], "zh": ["因为", "所以"]
}
# right?, entailment (yes), neutral (also), contradiction (no)
XNLI = {
    "ar": ["صحيح", "نعم", "لذا", "رقم"], "bg": ["правилно", "да", "така", "не"],
    "de": ["richtig", "Ja", "Auch", "Nein"], "el": ["σωστός", "Ναί", "Έτσι", "όχι"],
    "en": ["right", "Yes", "Also", "No"], "es": ["correcto", "Sí", "Asi que", "No"],
    "fr": ["correct", "Oui", "Aussi", "Non"], "hi": ["सही", "हाँ", "इसलिए", "नहीं"],
    "ru": ["правильно", "Да", "Так", "Нет"], "sw": ["sahihi", "Ndiyo", "Hivyo", "Hapana"],
    "th": ["ถูกต้อง", "ใช่", "ดังนั้น", "ไม่"], "tr": ["doğru", "Evet", "Böylece", "Hayır"],
    "ur": ["صحیح", "جی ہاں", "اس لئے", "نہیں"], "vi": ["đúng", "Vâng", "Vì vậy", "Không"],
    "zh": ["正确", "是的", "所以", "不是的"]
}
# right?, no, yes
PAWSX = {
    "de": ["richtig", "Nein", "Ja"], "en": ["right", "No", "Yes"], "es": ["verdad", "No", "Sí"],
    "fr": ["n'est-ce pas", "Non", "Oui"], "ja": ["ですね", "いいえ", "はい"], "ko": ["맞죠", "아니요", "예"],
    "zh": ["对吧", "不是", "是"]
}
# question, answer, stop string
MGSM = {
    "bn": ["প্রশ্ন: ", "Answer:", "প্রশ্ন:"], "de": ["Frage: ", "Antwort:", "Frage:"],
    "en": ["Question: ", "Answer:", "Question:"], "es": ["Pregunta: ", "Respuesta:", "Pregunta:"],
    "fr": ["Question : ", "Réponse :", "Question :"], "ja": ["問題： ", "Answer:", "問題："],
    "ru": ["Задача: ", "Answer:", "Задача:"], "sw": ["Swali: ", "Answer:", "Swali:"],
    "te": ["ప్రశ్న: ", "Answer:", "ప్రశ్న:"], "th": ["โจทย์: ", "Answer:", "โจทย์:"],
    "zh": ["问题： ", "Answer:", "问题："]
}
# context, question, answer
XQUAD = {
    "ar": ["سيا:", "سؤال:", "إجابة:"], "de": ["Kontext:", "Frage:", "Antwort:"],
    "el": ["Συμφραζόμενα:", "Ερώτηση:", "Απάντηση:"], "en": ["Context:", "Question:", "Answer:"],
    "es": ["Contexto:", "Pregunta:", "Respuesta:"], "hi": ["प्रसंग:", "सवाल:", "उत्तर:"],
    "ro": ["Context:", "Întrebare:", "Răspuns:"], "ru": ["Контекст:", "Вопрос:", "Ответ:"],
    "th": ["บริบท:", "คำถาม:", "คำตอบ:"], "tr": ["Bağlam:", "Soru:", "Cevap:"],
    "vi": ["Bối cảnh:", "Câu hỏi:", "Trả lời:"], "zh": ["语境:", "问题:", "回答:"]
}
TYDIQA = {
    "ar": ["السياق:", "السؤال:", "الإجابة:"], "bn": ["প্রসঙ্গ:", "প্রশ্ন:", "উত্তর:"],
    "en": ["Context:", "Question:", "Answer:"], "fi": ["Konteksti:", "Kysymys:", "Vastaus:"],
    "id": ["Konteks:", "Pertanyaan:", "Jawaban:"], "ko": ["맥락:", "질문:", "답변:"],
    "ru": ["Контекст:", "Вопрос:", "Ответ:"], "sw": ["Muktadha:", "Swali:", "Jibu:"],
    "te": ["సందర్భం:", "ప్రశ్న:", "సమాధానం:"]
}
# the 29 languages of the paper by their FLORES-200 codes
FLORES = {code: language_table.LANGUAGES[code].flores for code in language_table.MARCO}
# the pairs of the paper's Table 12, any to any
TABLE12 = """
    ar-ja es-ja fr-ja hu-ja hu-ko ja-ar ja-es ja-ko ja-th ja-zh kk-ar kk-fr kk-ja kk-ko kk-pt kk-th kk-zh ko-ja
    ko-th ko-zh th-ar th-es th-fr th-ja th-kk th-ko th-zh tr-ja uk-fr uk-ja uk-kk uk-ko uk-th uk-zh ur-ar ur-ko
    zh-ar zh-fr zh-ja zh-ko zh-pt zh-th
""".split()
