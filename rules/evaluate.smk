rule extract_features:
    """Features of one encoder, or of a floor, on every dataset that it is judged on: once."""
    input:
        encoder=encoder_of_features,
        datasets=datasets_of_features,
    output:
        features="<results>/evaluations/features/{judged}/features.safetensors",
        manifest="<results>/evaluations/features/{judged}/manifest.json",
    log:
        "<logs>/extract_features/{judged}.log",
    threads: 1
    resources:
        gpu=GPUS_PER_JOB,
    params:
        spec=spec_of(features_of),
        code=code_of(features_of),
    shell:
        "exec python -m clsp extract-features --spec {params.spec:q} --code {params.code}"
        " --encoder {input.encoder:q} --datasets {input.datasets:q}"
        " --features {output.features:q} --manifest {output.manifest:q} 2> {log:q}"


rule probe_encoder:
    """Linear probe and weighted kNN of one frozen encoder on its own dataset."""
    input:
        features=features_of_encoder,
        dataset=dataset_of_probe,
    output:
        linear="<results>/evaluations/probe/{encoder}/linear.json",
        knn="<results>/evaluations/probe/{encoder}/knn.json",
        linear_logits="<results>/evaluations/probe/{encoder}/linear.npz",
        knn_logits="<results>/evaluations/probe/{encoder}/knn.npz",
        manifest="<results>/evaluations/probe/{encoder}/manifest.json",
    log:
        "<logs>/probe_encoder/{encoder}.log",
    threads: 1
    resources:
        gpu=GPUS_PER_JOB,
    params:
        spec=spec_of(probe_of),
        code=code_of(probe_of),
    shell:
        "exec python -m clsp probe-encoder --spec {params.spec:q} --code {params.code}"
        " --features {input.features:q} --dataset {input.dataset:q} --linear {output.linear:q}"
        " --knn {output.knn:q} --linear-logits {output.linear_logits:q}"
        " --knn-logits {output.knn_logits:q} --manifest {output.manifest:q} 2> {log:q}"


rule probe_transfer:
    """Transfer of one frozen encoder or floor to every downstream dataset, in one process."""
    input:
        features=rules.extract_features.output,
        datasets=datasets_of_tasks,
    output:
        results="<results>/evaluations/transfer/{judged}/transfer.json",
        predictions="<results>/evaluations/transfer/{judged}/predictions.npz",
        manifest="<results>/evaluations/transfer/{judged}/manifest.json",
    log:
        "<logs>/probe_transfer/{judged}.log",
    threads: 1
    resources:
        gpu=GPUS_PER_JOB,
    params:
        spec=spec_of(transfer_of),
        code=code_of(transfer_of),
    shell:
        "exec python -m clsp probe-transfer --spec {params.spec:q} --code {params.code}"
        " --features {input.features:q} --datasets {input.datasets:q}"
        " --results {output.results:q} --predictions {output.predictions:q}"
        " --manifest {output.manifest:q} 2> {log:q}"


rule probe_few_shot:
    """Few-shot and label-fraction curves of one frozen encoder or floor, in one process."""
    input:
        features=rules.extract_features.output,
        datasets=datasets_of_few_shot,
    output:
        results="<results>/evaluations/few_shot/{judged}/few_shot.json",
        predictions="<results>/evaluations/few_shot/{judged}/predictions.npz",
        manifest="<results>/evaluations/few_shot/{judged}/manifest.json",
    log:
        "<logs>/probe_few_shot/{judged}.log",
    threads: 1
    resources:
        gpu=GPUS_PER_JOB,
    params:
        spec=spec_of(few_shot_of),
        code=code_of(few_shot_of),
    shell:
        "exec python -m clsp probe-few-shot --spec {params.spec:q} --code {params.code}"
        " --features {input.features:q} --datasets {input.datasets:q}"
        " --results {output.results:q} --predictions {output.predictions:q}"
        " --manifest {output.manifest:q} 2> {log:q}"


rule fine_tune_encoder:
    """Fine-tuning of one encoder on every downstream dataset, in one process."""
    input:
        encoder=encoder_of_fine_tuning,
        datasets=datasets_of_tasks,
    output:
        results="<results>/evaluations/fine_tune/{encoder}/fine_tune.json",
        predictions="<results>/evaluations/fine_tune/{encoder}/predictions.npz",
        manifest="<results>/evaluations/fine_tune/{encoder}/manifest.json",
    log:
        "<logs>/fine_tune_encoder/{encoder}.log",
    benchmark:
        "<benchmarks>/fine_tune_encoder/{encoder}.tsv"
    threads: 1
    resources:
        gpu=GPUS_PER_JOB,
    params:
        spec=spec_of(fine_tune_of),
        code=code_of(fine_tune_of),
        scratch=scratch_of("fine-tune-encoder"),
    shell:
        "exec python -m clsp fine-tune-encoder --spec {params.spec:q} --code {params.code}"
        " --encoder {input.encoder:q} --datasets {input.datasets:q}"
        " --results {output.results:q} --predictions {output.predictions:q}"
        " --scratch {params.scratch:q} --manifest {output.manifest:q} 2> {log:q}"


rule measure_bank:
    """Measure the quality of one bank, with the network that params.yaml names."""
    input:
        bank=rules.gather_bank.output,
        dataset=dataset_of_bank,
        encoder=encoder_of_quality,
        weights=weights_of_quality,
    output:
        numbers="<results>/evaluations/quality/{bank}/quality.json",
        arrays="<results>/evaluations/quality/{bank}/quality.npz",
        manifest="<results>/evaluations/quality/{bank}/manifest.json",
    log:
        "<logs>/measure_bank/{bank}.log",
    benchmark:
        "<benchmarks>/measure_bank/{bank}.tsv"
    threads: 1
    resources:
        gpu=GPUS_PER_JOB,
    params:
        spec=spec_of(quality_of),
        code=code_of(quality_of),
    shell:
        "exec python -m clsp measure-bank --spec {params.spec:q} --code {params.code}"
        " --bank {input.bank:q} --dataset {input.dataset:q} --encoder {input.encoder:q}"
        " --numbers {output.numbers:q} --arrays {output.arrays:q}"
        " --manifest {output.manifest:q} 2> {log:q}"


rule count_duplicates:
    """Count test images that are exact duplicates of what something is trained on."""
    input:
        datasets=[prepared(name) for name in plan.datasets_needed(PARAMS)],
        banks=[
            expand(rules.gather_bank.output, bank=name)
            for name in plan.banks_needed(PARAMS)
        ],
    output:
        duplicates="<results>/evaluations/duplicates/duplicates.json",
        manifest="<results>/evaluations/duplicates/manifest.json",
    log:
        "<logs>/count_duplicates.log",
    params:
        spec=spec_of(report_of("count-duplicates")),
        code=code_of(report_of("count-duplicates")),
    shell:
        "exec python -m clsp count-duplicates --spec {params.spec:q} --code {params.code}"
        " --datasets {input.datasets:q} --banks {input.banks:q}"
        " --duplicates {output.duplicates:q} --manifest {output.manifest:q} 2> {log:q}"


# Every transfer that is asked for.
TRANSFERS = []
if TRANSFER:
    TRANSFERS += expand(rules.probe_transfer.output, judged=JUDGED)
    TRANSFERS += (
        expand(rules.probe_few_shot.output, judged=JUDGED) if FEW_SHOT_TASKS else []
    )
    TRANSFERS += (
        expand(rules.fine_tune_encoder.output, encoder=ENCODERS)
        if TRANSFER.fine_tune
        else []
    )
