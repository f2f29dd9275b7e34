"""Published results of Marco-LLM (arXiv 2412.04003), Tables 4 to 12 and 15 to 17, as printed.

A table is {"title", "cells" (its columns here; some are rows in the paper), "rows": {model: one value per cell}} and,
where the paper prints a mean, "average": {model: mean}. Tables 5 to 7 are here, the chat models' in published_chat.py.

The mean of the cells differs from the printed one by more than 0.15 in: Table 9, Marco-72B (76.37); 10, Llama3.1-70B
(84.58); 11, GPT-4 into English (39.47); 15, Qwen2.5-7B (37.68), Qwen2.5-72B (47.42), Marco-72B (61.69); 16, Qwen2-72B
(91.32, by subjects). In Table 17 several cells of Llama3.1-8B equal those of 70B, and Qwen2-7B's Math equals its
SAT-Math.
"""
from reports import published_chat

# Table 4, base models: benchmark -> (prefixes of our tasks' names, split, metric, shots, languages). The languages of
# XCOPA, XStoryCloze and TyDiQA are those among the paper's 29 (inferred; the counts agree), those of Belebele and
# Flores all but English. None: the paper does not say, and ours are taken as they are.
_ALL_BUT_ENGLISH = "zh ar de es fr ko ja pt tr bn he id it ms nl pl ru th uk ur vi cs el hu kk ro az ne"
BASE = {
    "AGIEval": (["agieval"], "test", "acc", 5, None),
    "ARC": (["arc_challenge"], "test", "acc", 25, "en"),
    "Belebele": (["belebele"], "test", "acc", 1, _ALL_BUT_ENGLISH),
    "CEval": (["ceval"], "val", "acc", 5, "zh"),
    "Flores": (["flores"], "devtest", "bleu", 1, " ".join(f"en-{x} {x}-en" for x in _ALL_BUT_ENGLISH.split())),
    "MMLU": (["mmlu"], "test", "acc", 5, "en"),
    "TyDiQA": (["tydiqa"], "val", "f1", 1, "ar bn en id ko ru"),
    "WMT16": (["wmt16"], "test", "bleu", 1, None),
    "XCOPA": (["xcopa"], "val", "acc", 5, "id it th tr vi zh"),
    "XMMLU": (["m_mmlu", "xmmlu"], "val", "acc", 5, None),
    "XStoryCloze": (["xstorycloze"], "val", "acc", 5, "ar en es id ru zh"),
}
# Chat models, Tables 8 to 12 and 15 to 17: neither split nor shots are published
CHAT = {
    "MMMLU": (["mmmlu"], None, "acc", None, "ar bn de es fr hi id it ja ko zh pt sw yo"),
    "TyDiQA": (["tydiqa"], None, "f1", None, "ar bn en fi id ja ko ru sw te th"),
    "AGIEval": (["agieval"], None, "acc", None, None),
    "CEval": (["ceval"], None, "acc", None, "zh"),
    "Belebele": (["belebele"], None, "acc", None, "az bn cs el he hu id it ja kk ms nl ne pl ro ru uk ur th vi"),
    "Flores": (["flores"], None, "bleu", None, None),
}

# Table 16: the 52 subjects of C-Eval by category, as its authors define them; "hard" is eight of STEM, "average" all
CEVAL = {
    "STEM": "computer_network operating_system computer_architecture college_programming college_physics "
            "college_chemistry advanced_mathematics probability_and_statistics discrete_mathematics "
            "electrical_engineer metrology_engineer high_school_mathematics high_school_physics high_school_chemistry "
            "high_school_biology middle_school_mathematics middle_school_biology middle_school_physics "
            "middle_school_chemistry veterinary_medicine".split(),
    "social science": "college_economics business_administration marxism mao_zedong_thought education_science "
                      "teacher_qualification high_school_politics high_school_geography middle_school_politics "
                      "middle_school_geography".split(),
    "humanities": "modern_chinese_history ideological_and_moral_cultivation logic law chinese_language_and_literature "
                  "art_studies professional_tour_guide legal_professional high_school_chinese high_school_history "
                  "middle_school_history".split(),
    "other": "civil_servant sports_science plant_protection basic_medicine clinical_medicine urban_and_rural_planner "
             "accountant fire_engineer environmental_impact_assessment_engineer tax_accountant physician".split(),
}
CEVAL["average"] = [subject for category in CEVAL.values() for subject in category]
CEVAL["hard"] = ("advanced_mathematics discrete_mathematics probability_and_statistics college_chemistry "
                 "college_physics high_school_mathematics high_school_chemistry high_school_physics").split()
# Table 17: a task's name is its set's with _ for - and space; these groups are unweighted means over sets (OpenCompass)
GAOKAO = ["gaokao_" + x for x in "chinese english geography history biology chemistry mathqa physics mathcloze".split()]
AGIEVAL = {"Gaokao": GAOKAO, "Chinese": [*GAOKAO, "logiqa_zh", "jec_qa_kd", "jec_qa_ca"],
           "English": "lsat_ar lsat_lr lsat_rc logiqa_en sat_math sat_en sat_en_without_passage math aqua_rat".split()}
AGIEVAL["average"] = AGIEVAL["Chinese"] + AGIEVAL["English"]

TABLES = {
    5: {
        "title": "base models, mean of each benchmark",
        "cells": "AGIEval Belebele CEval Flores MMLU TyDiQA WMT16 XCOPA XMMLU XStoryCloze".split(),
        "rows": {
            "Qwen2-7B": (64.6, 73.4, 83.0, 27.1, 71.9, 52.3, 18.1, 70.6, 60.2, 70.6),
            "Qwen2.5-7B": (66.5, 72.3, 81.4, 27.2, 75.4, 59.9, 18.2, 73.6, 62.6, 70.3),
            "Llama3-8B": (24.3, 55.3, 37.5, 33.1, 53.6, 50.5, 24.6, 71.7, 49.7, 66.5),
            "Llama3.1-8B": (44.9, 63.3, 52.8, 33.4, 66.2, 57.0, 25.8, 71.6, 49.2, 71.7),
            "Marco-7B": (68.8, 78.8, 83.5, 35.0, 74.4, 60.8, 29.0, 76.6, 61.2, 71.9),
            "Qwen2-72B": (78.2, 86.5, 90.4, 38.7, 83.8, 58.7, 30.2, 80.9, 78.5, 77.1),
            "Qwen2.5-72B": (80.8, 87.6, 90.6, 35.0, 86.3, 63.7, 31.0, 84.7, 79.9, 76.3),
            "Llama3-70B": (60.6, 85.5, 66.8, 37.4, 79.2, 64.3, 34.3, 81.1, 72.0, 76.9),
            "Llama3.1-70B": (61.7, 86.2, 67.3, 36.9, 78.8, 62.8, 35.0, 83.0, 71.4, 75.4),
            "Marco-72B": (84.4, 90.0, 93.7, 45.0, 86.3, 62.7, 35.1, 85.7, 81.2, 78.7),
        },
    },
    6: {
        "title": "base models of 7B and 8B, mean over the multilingual benchmarks, by language",
        "cells": "zh en ar de es fr ja ko pt tr az bn he id it pl ms nl ro ru th uk ur vi cs el hu kk ne".split(),
        "average": {"Llama3-8B": 55.9, "Llama3.1-8B": 61.2, "Qwen2-7B": 69.4, "Qwen2.5-7B": 69.1, "Marco-7B": 75.5},
        "rows": {
            "Llama3-8B": (55.1, 69.6, 40.5, 47.3, 57.0, 56.0, 63.4, 43.2, 56.8, 51.1, 39.1, 45.9, 50.2, 64.0, 68.1,
                62.2, 56.8, 61.0, 65.6, 69.2, 54.8, 60.9, 50.0, 67.6, 59.2, 68.1, 59.8, 41.3, 37.0),
            "Llama3.1-8B": (63.5, 74.2, 52.6, 59.8, 64.9, 63.5, 74.9, 63.8, 64.7, 62.9, 48.2, 49.8, 56.6, 66.1, 69.4,
                60.7, 57.7, 65.2, 67.4, 70.7, 53.3, 60.4, 56.7, 70.3, 63.6, 67.7, 61.0, 44.0, 41.56),
            "Qwen2-7B": (75.8, 77.4, 61.3, 69.5, 70.4, 69.8, 76.7, 76.0, 70.7, 66.0, 52.2, 63.9, 69.8, 77.3, 80.3, 77.2,
                73.2, 80.2, 77.3, 81.2, 69.1, 72.7, 63.9, 76.1, 76.9, 65.0, 63.3, 43.1, 36.33),
            "Qwen2.5-7B": (75.5, 78.0, 64.5, 69.0, 71.9, 71.2, 76.4, 79.7, 72.3, 66.6, 53.2, 62.3, 68.6, 77.8, 79.4,
                76.3, 73.9, 71.6, 72.6, 77.1, 73.7, 70.4, 59.9, 79.0, 70.0, 67.2, 57.9, 45.9, 42.1),
            "Marco-7B": (76.0, 77.9, 66.0, 72.9, 72.6, 72.5, 77.3, 78.3, 72.3, 73.4, 69.4, 68.9, 77.3, 82.3, 83.4, 80.9,
                80.2, 82.1, 80.8, 83.2, 72.9, 79.9, 71.3, 81.2, 78.2, 77.1, 69.7, 66.1, 65.8),
        },
    },
    7: {
        "title": "base models of 70B and 72B, mean over the multilingual benchmarks, by language",
        "cells": "zh en ar de es fr ja ko pt tr az bn he id it pl ms nl ro ru th uk ur vi cs el hu kk ne".split(),
        "average": {"Llama3-70B": 82.5, "Llama3.1-70B": 83.2, "Qwen2-72B": 83.8, "Qwen2.5-72B": 85.2,
                    "Marco-72B": 87.9},
        "rows": {
            "Llama3-70B": (75.2, 82.7, 73.0, 80.8, 80.7, 78.9, 82.5, 87.1, 81.1, 80.8, 77.2, 79.7, 80.1, 87.7, 87.1,
                87.2, 85.2, 88.9, 88.4, 87.9, 80.2, 89.0, 80.6, 87.1, 87.1, 88.3, 83.8, 74.7, 70.1),
            "Llama3.1-70B": (75.0, 83.2, 73.4, 80.9, 79.4, 80.7, 84.5, 87.0, 80.8, 81.3, 77.9, 79.7, 82.3, 88.0, 87.9,
                87.1, 87.2, 88.8, 88.2, 88.3, 80.4, 88.6, 81.2, 89.6, 87.6, 89.6, 83.0, 77.9, 73.8),
            "Qwen2-72B": (83.7, 84.6, 76.2, 84.0, 82.5, 80.4, 86.6, 88.8, 83.6, 79.0, 78.8, 83.2, 83.9, 87.6, 88.1,
                88.6, 83.4, 89.0, 88.2, 89.9, 85.7, 88.2, 81.4, 88.7, 87.8, 89.4, 80.1, 70.3, 67.1),
            "Qwen2.5-72B": (84.8, 85.1, 77.4, 85.0, 83.1, 82.7, 86.1, 88.9, 83.8, 81.5, 79.1, 82.9, 84.1, 88.4, 89.9,
                88.8, 87.9, 90.3, 87.3, 91.0, 87.6, 90.2, 82.1, 90.0, 90.0, 89.0, 88.1, 72.2, 74.1),
            "Marco-72B": (86.4, 86.0, 79.7, 87.0, 84.8, 82.8, 86.2, 90.6, 85.5, 84.4, 85.8, 86.7, 85.1, 93.0, 91.0,
                88.2, 90.7, 93.0, 90.4, 90.3, 88.3, 91.7, 87.9, 90.8, 91.4, 91.1, 88.3, 84.8, 86.7),
        },
    },
}
TABLES |= published_chat.TABLES



def before_and_after(table, base, marco):
    """{cell of the published table: (its score of the base model, Marco's)}."""
    t = TABLES[table]
    return dict(zip(t["cells"], zip(t["rows"][base], t["rows"][marco])))


BENCHMARKS, TABLE5 = TABLES[5]["cells"], TABLES[5]["rows"]
TABLE6 = before_and_after(6, "Qwen2-7B", "Marco-7B")
TABLE7 = before_and_after(7, "Qwen2-72B", "Marco-72B")
TABLE12 = before_and_after(12, "Qwen2-7B", "Marco-7B")
