"""How models decline to answer, in several languages: the beginnings of such replies."""
REFUSALS = [
    "I'm sorry, but I can't", "I'm sorry, but I cannot", "I'm sorry, I can't", "I cannot assist", "I can't assist",
    "I can't help with", "I'm unable to assist",
    "抱歉，我无法", "对不起，我无法", "申し訳ありませんが",
    "Извините, но я не могу", "Кешіріңіз, бірақ мен",
    "Lo siento, pero no puedo", "Je suis désolé, mais je ne peux", "Es tut mir leid, aber ich kann",
]
