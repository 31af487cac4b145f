"""A small UniPixel of random weights, with its own tokenizer and processor, made in code: nothing is downloaded.

It is UniPixel in every part, and sized to *learn* a small drawn world on one GPU in minutes: clips of about ten seconds
at six frames a second, a handful of moving things, questions with lettered options, answers with seconds and masks.
Why these sizes:

- The language model sees every frame. A temporal step is two frames, a third of a second, and ``tokens_per_second`` is
  3, so that neighbouring steps are one rotary position apart; ``rope_theta`` is small, so that positions 0 ... 30 in
  time and 0 ... 10 in space really turn the angles. Published sizes would see half a second and no space at all.
- Frames are shown in cells of 24 pixels, 50 for a frame of 16:9: 1,500 tokens for ten seconds.
- Digits are tokens of their own: times are spelled out, never looked up.
- SAM 2 sees squares of 192 pixels, hence masks of 48 x 48 logits: an apple of 16 pixels in a frame of 384 is two wide.
  It remembers four frames instead of seven: on a CPU attending to memories costs more than anything else.

What helps it learn: a reply that says the option in words before its letter (:func:`evqa.prompts.grounded_reply`).
"""

from __future__ import annotations

from typing import Any

__all__ = ["CHAT_TEMPLATE", "tiny", "tiny_config", "tiny_processor", "tiny_tokenizer"]

#: Chatml as Qwen2.5-VL writes it. Clips stand where they are in a message.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for item in message['content'] %}"
    "{% if item['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif item['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in item %}{{ item['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>", "<|ref|>", "<|seg|>", "<|mem|>",
)  # fmt: skip

#: What the tokenizer learns its words from; any other text is spelled in bytes.
_WORDS = """system user assistant You are a helpful assistant. The video is seconds long of unknown length. Question:
Options: (A) (B) (C) (D) (E) (F) Answer: A. B. C. D. E. F. Temporal Evidence: [[ ], [ ]]. Spatial Evidence: . , ? : ' "
Answer the question Give the letter of the right option, the time segments in seconds that show the evidence as [start,
end] pairs from the start and segment the objects that prove it. Reply with and nothing else. When can the evidence for
your answer be seen? list for example Which objects your Segment them in the video. Which these spans shows images
frames each, one region has red outline. image outlines what proves its s to What Which Who Where When How Under many
much often does do did is are was were has have had comes come came goes go went first last second third fourth fifth
sixth next right after before while during between both two three four five six seven eight times twice once again one
whole clip for good at the end in into out of on off from through by past behind under over view up down hidden visible
something nothing anything completely while still passes passed falls fall crosses cross lights light flash flashes
flies fly swims swim opens open openings closed closes visits appears leaves moves moving stops start starts look looks
colour color shape shapes size small large big little left middle upper lower top bottom far low near light dark plain
striped dotted starred folding hot-air paper toy red orange yellow green blue purple violet pink white black grey gray
brown teal mint peach rose lilac sage indigo circle square triangle star ball block coin cup cups cube box crate drum
armchair screen door lamp window windows cat dog duck robot car bus van taxi truck pickup vehicle bicycle person man
woman boat ferry rock lighthouse sailing rowing fishing fish turtle tree apple apples bird owl rocket airplane plane
balloon flying saucer sky shooting stars house street room harbour reef orchard gallery round which what who where when
how no it 's"""

_LINE_STARTS = ("system", "user", "assistant", "start", "end", "the", "a", "answer", "segments")


def tiny_tokenizer() -> Any:
    """A byte-level BPE of about 950 tokens with the control tokens of Qwen2.5-VL and UniPixel.

    It spells any text exactly; words of the small world are single tokens, digits always stand alone.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    spelled = Tokenizer(models.BPE())
    # A word with the space before it; a digit; runs of signs one by one; line ends.
    pieces = Regex(r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]|\s")
    spelled.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pieces, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    spelled.decoder = decoders.ByteLevel()
    words = sorted(set(_WORDS.split()))
    trainer = trainers.BpeTrainer(
        vocab_size=4096,  # until every word is one token
        special_tokens=list(_SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Inside a sentence a word has a space before it; at the start of a line, or behind a bracket, it has none.
    starts = [word for word in words if word[0].isupper() or word in _LINE_STARTS]
    spelled.train_from_iterator([*(f" {word}" for word in words), *starts], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=spelled,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[name for name in _SPECIAL if name not in ("<|im_end|>", "<|endoftext|>")],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
    )


def tiny_processor() -> Any:
    """The processor of :func:`tiny`."""
    from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    from evqa.models.unipixel.processing_unipixel import UniPixelProcessor

    cell = 2 * _PATCH
    pixels = {"shortest_edge": 32 * cell**2, "longest_edge": 60 * cell**2}
    sizes = {"patch_size": _PATCH, "merge_size": 2, "temporal_patch_size": 2, "size": pixels}
    tokenizer = tiny_tokenizer()
    return UniPixelProcessor(
        image_processor=Qwen2VLImageProcessor(**sizes),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**sizes),
        chat_template=tokenizer.chat_template,
        frame_policy="fps:6.0,max=72",
        min_pixels=pixels["shortest_edge"],
        max_pixels=pixels["longest_edge"],
        few_frames=1,
        sam_image_size=_SQUARE,
        legacy_clock=False,
    )


_PATCH = 12
_SQUARE = 192


def tiny_config(tokenizer: Any) -> Any:
    """The configuration of :func:`tiny`, for this tokenizer."""
    from evqa.models.unipixel.configuration_unipixel import UniPixelConfig, UniPixelSam2Config

    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in _SPECIAL}
    width = 192
    # Of the order of 1 / sqrt(width): with the 0.02 of large models a narrow one starts off much slower.
    start = {"initializer_range": 0.05}
    text = {
        **start,
        "vocab_size": -(-len(tokenizer) // 64) * 64,
        "hidden_size": width,
        "intermediate_size": 304,
        "num_hidden_layers": 5,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 50.0, "mrope_section": [6, 5, 5]},
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    vision = {
        **start,
        "depth": 3,
        "hidden_size": 96,
        "num_heads": 3,
        "intermediate_size": 224,
        "out_hidden_size": width,
        "patch_size": _PATCH,
        "spatial_patch_size": _PATCH,
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
        "window_size": 8 * _PATCH,
        "fullatt_block_indexes": [0, 1, 2],
        "tokens_per_second": 3,
    }
    sam2 = UniPixelSam2Config(
        image_size=_SQUARE,
        embed_dim=20,
        num_heads=1,
        stages=[1, 2, 3, 1],
        global_attention_blocks=[3, 4, 5],
        window_spec=[8, 4, 12, 6],
        background_size=[12, 12],
        drop_path_rate=0.0,
        hidden_size=80,
        memory_dim=40,
        memory_attention_layers=2,
        memory_feed_forward=160,
        memory_dropout=0.0,
        memory_fuser_layers=1,
        num_maskmem=4,
        decoder_heads=4,
        decoder_mlp_dim=160,
        iou_head_dim=80,
        **start,
    )
    return UniPixelConfig(
        text_config=text,
        vision_config=vision,
        sam2_video_config=sam2,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        ref_token_id=ids["<|ref|>"],
        seg_token_id=ids["<|seg|>"],
        mem_token_id=ids["<|mem|>"],
        tie_word_embeddings=True,
    )


def tiny(seed: int = 0) -> tuple[Any, Any]:
    """A small random model and its processor.

    Args:
        seed: Of the weights; the caller's random state is left alone.

    Returns:
        ``(UniPixelForConditionalGeneration in float32, UniPixelProcessor)``: at most 4 million parameters, 8 MB in
        bfloat16.
    """
    import torch

    from evqa.models.unipixel.modeling_unipixel import UniPixelForConditionalGeneration

    processor = tiny_processor()
    config = tiny_config(processor.tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = UniPixelForConditionalGeneration(config)
        model.initialize_new_parameters()
    model.generation_config.eos_token_id = config.text_config.eos_token_id
    model.generation_config.pad_token_id = config.text_config.pad_token_id
    return model.eval(), processor
