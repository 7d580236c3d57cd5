rule probe_encoder:
    """Linear probe and weighted kNN of one frozen encoder on its own dataset."""
    input:
        encoder=rules.pretrain_encoder.output,
        dataset=dataset_of_run,
    output:
        linear="<results>/evaluations/probe/{run}/linear.json",
        knn="<results>/evaluations/probe/{run}/knn.json",
        linear_logits="<results>/evaluations/probe/{run}/linear.npz",
        knn_logits="<results>/evaluations/probe/{run}/knn.npz",
        features="<results>/evaluations/probe/{run}/features.npy",
        manifest="<results>/evaluations/probe/{run}/manifest.json",
    log:
        "<logs>/probe_encoder/{run}.log",
    threads: 1
    resources:
        gpu=GPUS_PER_JOB,
    params:
        spec=spec_of(probe_of),
        code=code_of(probe_of),
    shell:
        "exec python -m clsp probe-encoder --spec {params.spec:q} --code {params.code}"
        " --encoder {input.encoder:q} --dataset {input.dataset:q} --linear {output.linear:q}"
        " --knn {output.knn:q} --linear-logits {output.linear_logits:q}"
        " --knn-logits {output.knn_logits:q} --features {output.features:q}"
        " --manifest {output.manifest:q} 2> {log:q}"


rule probe_transfer:
    """Transfer of one frozen encoder to every downstream dataset, in one process."""
    input:
        encoder=rules.pretrain_encoder.output,
        datasets=expand(rules.prepare_dataset.output, dataset=TASKS),
    output:
        results="<results>/evaluations/transfer/{run}/transfer.json",
        predictions="<results>/evaluations/transfer/{run}/predictions.npz",
        manifest="<results>/evaluations/transfer/{run}/manifest.json",
    log:
        "<logs>/probe_transfer/{run}.log",
    threads: 1
    resources:
        gpu=GPUS_PER_JOB,
    params:
        spec=spec_of(transfer_of),
        code=code_of(transfer_of),
    shell:
        "exec python -m clsp probe-transfer --spec {params.spec:q} --code {params.code}"
        " --encoder {input.encoder:q} --datasets {input.datasets:q}"
        " --results {output.results:q} --predictions {output.predictions:q}"
        " --manifest {output.manifest:q} 2> {log:q}"
