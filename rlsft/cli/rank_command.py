"""`rlsft rank FILE`: rank the answers in a file, explain every rank, write the pairs."""

from __future__ import annotations

from collections.abc import Sequence

from rlsft.cli.model_commands import Parser


def run(command: str, argv: Sequence[str]) -> int:
    parser = Parser(
        "rlsft rank",
        description="Rank several responses a prompt with TextRank and ISODATA. FILE holds rows of prompt and "
        "responses (a list), or one row a response; an optional demonstration is what the ranking teleports to.",
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE", help="JSONL, JSON, CSV or parquet")
    parser.add_argument("--output_dir", default=None, help="folder for ranked.*, pairs.* and explanations.jsonl")
    parser.add_argument("--column_map", help="our=their column names, such as prompt=question,responses=answers")
    parser.add_argument("--encoder", help="minilm or a folder of a sentence encoder; default: word overlap")
    parser.add_argument("--similarity", default=None, help="shifted_cosine, relu_cosine, word_overlap or bm25")
    parser.add_argument("--form", default="stochastic", choices=["stochastic", "eigenvector"])
    parser.add_argument("--damping", type=float, default=0.85)
    parser.add_argument("--teleport", default="demonstration", choices=["demonstration", "none"])
    parser.add_argument("--teleport_strength", type=float, default=4.0)
    parser.add_argument("--cluster", default="ball_hall", choices=["ball_hall", "str"])
    parser.add_argument("--rank_interval", type=int, help="least rank distance of a pair")
    parser.add_argument("--pair_mode", default="at_least", choices=["at_least", "exact"])
    parser.add_argument("--noise_rate", type=float, default=0.24)
    parser.add_argument("--language", default="en", help="en, ja or zh")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=5, help="prompts shown on the terminal")
    args = parser.parse_args(list(argv))

    from rich.console import Console

    from rlsft.ranking import load_encoder, rank_file, render

    options = {
        name: getattr(args, name)
        for name in (
            "form", "damping", "teleport_strength", "cluster", "rank_interval", "pair_mode", "noise_rate", "language",
            "seed",
        )
    }  # fmt: skip
    if args.similarity is not None:
        options["similarity"] = args.similarity
    ranked = rank_file(
        args.file,
        column_map=args.column_map,
        encoder=load_encoder(args.encoder),
        teleport=None if args.teleport == "none" else args.teleport,
        **options,
    )
    console = Console()
    console.print(render(ranked, max_prompts=args.show))
    if args.output_dir:
        for path in ranked.save(args.output_dir).values():
            console.print(f"written: {path}", highlight=False)
    return 0
