"""When the model says that it does not know, and how the system says so itself."""

from __future__ import annotations

import re

from .text import fold, language_of

TEXT = {
    "en": "I did not find an answer to this in the documents.",
    "pt": "Não encontrei a resposta para isso nos documentos.",
}

# First person, or the sources as the subject: "the client does not know its address" is no
# refusal. Matched on folded text.
_DO_NOT_KNOW = re.compile(
    r"""
      \bi\ (?:did\ not|didn't|do\ not|don't|could\ not|couldn't|cannot|can't
        |am\ (?:un|not\ )able\ to)
        \ (?:find|know|have|see|provide|answer|determine|help|assist|say|tell)\b
    | \bi(?:'m|\ am)\ (?:sorry|unable|afraid)\b
    | \b(?:the|these|this)\ (?:(?:numbered|given|provided)\ )?
        (?:sources?|documents?|passages?|context|text|information)\ (?:(?:above|given|provided)\ )?
        (?:do(?:es)?\ not|don't|doesn't|did\ not|cannot)\ (?:\w+\ )?
        (?:say|state|mention|contain|hold|provide|include|specify|give|have|answer|cover|tell
          |explain)
    | \b(?:is|are)\ not\ (?:\w+\ )?
        (?:mentioned|provided|specified|given|stated|found|included|available|contained)
        \ (?:in|by)\ (?:the|these|any|this)\ (?:\w+\ )?(?:sources?|documents?|context|text)
    | \bthere\ is\ no\ (?:information|mention|answer)\b
    | \bno\ answer\ (?:was|is)\ found\b
    | \bnao\ (?:encontrei|sei\b|consegui|posso\ (?:responder|ajudar|fornecer)
        |tenho\ (?:informac|acesso|como|certeza)|foi\ possivel\ encontrar)
    | \b(?:sinto\ muito|desculpe|lamento)\b
    | \b(?:as\ fontes|os\ documentos|o\ contexto|o\ texto|as\ passagens|a\ fonte|o\ documento)
        (?:\ \w+)?\ nao\ (?:\w+\ )?
        (?:diz|dizem|menciona|contem|traz|tem|informa|fornece|responde|inclu|apresenta|especifica
          |mostra|explica)
    | \bnao\ (?:e|foi|esta|ha|existe|sao|foram|consta|constam)\ (?:\w+\ )?
        (?:mencionad|especificad|fornecid|informad|informac|mencao|indicad|citad|disponivel)\w*
        (?:\ \w+){0,3}\ (?:n[ao]s?|pel[ao]s?)\ (?:\w+\ )?(?:fontes?|documentos?|contexto|textos?)
    | \bnao\ ha\ (?:informac|mencao|resposta)
    """,
    re.X,
)


def says_unknown(sentence: str) -> bool:
    """Whether a sentence says, in either language, that the answer is not known."""
    return bool(_DO_NOT_KNOW.search(fold(sentence).replace("’", "'")))


def text(language: str) -> str:
    return TEXT[language_of(language)]
