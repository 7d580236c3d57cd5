rule export_models:
    """Weights, model card and evaluation results of every encoder that was pretrained here."""
    input:
        rules.audit_suite.output,
        runs=expand(rules.pretrain_encoder.output.manifest, run=RUNS),
        template="clsp/export/card.md.jinja",
    output:
        directory("<reports>/exports/models"),
    log:
        "<logs>/export_models.log",
    params:
        results=folder_of(RESULTS),
        reports=folder_of(REPORTS),
        spec=spec_of(report_of("collect-results")),
        code=plan.export_code(),
    shell:
        "exec python -m clsp export models --spec {params.spec:q}"
        " --results {params.results:q} --reports {params.reports:q}"
        " --out {output:q} 2> {log:q}"


rule export_crate:
    """The whole experiment as a Workflow Run RO-Crate."""
    input:
        rules.audit_suite.output,
    output:
        directory("<reports>/exports/crate"),
    log:
        "<logs>/export_crate.log",
    params:
        results=folder_of(RESULTS),
        reports=folder_of(REPORTS),
        spec=spec_of(report_of("collect-results")),
        code=plan.export_code(),
    shell:
        "exec python -m clsp export crate --spec {params.spec:q}"
        " --results {params.results:q} --reports {params.reports:q}"
        " --out {output:q} 2> {log:q}"
