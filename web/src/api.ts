// The replies of the dashboard's server. Made by `make page-types` from the structs of
// src/cupel/dashboard/; never changed by hand.

export interface paths {
    "/api/v1/about": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Which server this is. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description Which server this is. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["About"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/ahead": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Read ahead what a page of these runs shows first. */
        get: {
            parameters: {
                query?: {
                    /** @description the key of a run, <project>/<id>; once for each */
                    run?: string;
                };
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description Read ahead what a page of these runs shows first. */
                204: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/chart.svg": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** A chart as a drawing. */
        get: {
            parameters: {
                query?: {
                    /** @description 1 to leave out the outermost values */
                    clip?: string;
                    /** @description JSON, by key of a run */
                    labels?: string;
                    /** @description 1 for a logarithmic axis */
                    log_y?: string;
                    /** @description JSON with `query`, and `cursor` or `name` of what one has */
                    sub?: string;
                    /** @description light or dark */
                    theme?: string;
                    /** @description above it */
                    title?: string;
                };
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description A chart as a drawing. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "image/svg+xml": unknown;
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/columns": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Every column that runs have. */
        get: {
            parameters: {
                query?: {
                    /** @description only its runs */
                    project?: string;
                };
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description Every column that runs have. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Columns"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/compare": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** What differs between some runs. */
        get: {
            parameters: {
                query?: {
                    /** @description the key of a run, <project>/<id>; once for each */
                    run?: string;
                };
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description What differs between some runs. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Comparison"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/delta": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** What is new of one subscription; 204 when nothing is. A frame of a chart, or a state as JSON. */
        get: {
            parameters: {
                query?: {
                    /** @description JSON with `query`, and `cursor` or `name` of what one has */
                    sub?: string;
                };
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description What is new of one subscription; 204 when nothing is. A frame of a chart, or a state as JSON. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/octet-stream": unknown;
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/export.csv": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Lines of several runs. */
        get: {
            parameters: {
                query?: {
                    /** @description its name */
                    metric?: string;
                    /** @description the key of a run, <project>/<id>; once for each */
                    run?: string;
                };
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description Lines of several runs. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "text/csv": unknown;
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/export.json": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Lines of several runs. */
        get: {
            parameters: {
                query?: {
                    /** @description its name */
                    metric?: string;
                    /** @description the key of a run, <project>/<id>; once for each */
                    run?: string;
                };
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description Lines of several runs. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": unknown;
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/models/compare": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Two models side by side. */
        get: {
            parameters: {
                query?: {
                    /** @description the key of a run */
                    a?: string;
                    /** @description the key of a run */
                    b?: string;
                };
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description Two models side by side. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["ModelDiff"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/openapi.json": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** This document. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description This document. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": unknown;
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/points": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Of each run of a chart the point nearest to a place. */
        get: {
            parameters: {
                query?: {
                    /** @description JSON with `query`, and `cursor` or `name` of what one has */
                    sub?: string;
                    /** @description the place, on the axis of the chart */
                    x?: string;
                };
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description Of each run of a chart the point nearest to a place. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Point"][];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/queue": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Every study with open work. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description Every study with open work. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["QueueState"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/runs": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The table of runs, a window of it. */
        get: {
            parameters: {
                query?: {
                    /** @description names with commas */
                    columns?: string;
                    /** @description a column */
                    group?: string;
                    /** @description how many are told */
                    limit?: string;
                    /** @description how many are passed over */
                    offset?: string;
                    /** @description only its runs */
                    project?: string;
                    /** @description a column, with - from the greatest */
                    sort?: string;
                    /** @description a filter, as of the command `cupel runs ls` */
                    where?: string;
                };
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The table of runs, a window of it. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Table"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/runs/{id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** What one run is. */
        get: {
            parameters: {
                query?: {
                    /** @description of the run or study; may be left out where its name is in one project only */
                    project?: string;
                };
                header?: never;
                path: {
                    id: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description What one run is. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["RunFacts"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/runs/{id}/anomalies": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** What stands out in its losses and gradient norms. */
        get: {
            parameters: {
                query?: {
                    /** @description of the run or study; may be left out where its name is in one project only */
                    project?: string;
                };
                header?: never;
                path: {
                    id: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description What stands out in its losses and gradient norms. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["RunAnomalies"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/runs/{id}/console": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The last lines that it printed. */
        get: {
            parameters: {
                query?: {
                    /** @description how many */
                    last?: string;
                    /** @description of the run or study; may be left out where its name is in one project only */
                    project?: string;
                };
                header?: never;
                path: {
                    id: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The last lines that it printed. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["ConsoleTail"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/runs/{id}/edit": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Change its notes and tags, where that is allowed. */
        post: {
            parameters: {
                query?: {
                    /** @description of the run or study; may be left out where its name is in one project only */
                    project?: string;
                };
                header?: never;
                path: {
                    id: string;
                };
                cookie?: never;
            };
            requestBody?: {
                content: {
                    "application/json": components["schemas"]["Edit"];
                };
            };
            responses: {
                /** @description Change its notes and tags, where that is allowed. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Edited"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/runs/{id}/export.csv": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Every line that it logged. */
        get: {
            parameters: {
                query?: {
                    /** @description only these metrics; once for each */
                    keys?: string;
                    /** @description of the run or study; may be left out where its name is in one project only */
                    project?: string;
                    /** @description all (default) or current */
                    sessions?: string;
                };
                header?: never;
                path: {
                    id: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description Every line that it logged. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "text/csv": unknown;
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/runs/{id}/export.json": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Every line that it logged. */
        get: {
            parameters: {
                query?: {
                    /** @description only these metrics; once for each */
                    keys?: string;
                    /** @description of the run or study; may be left out where its name is in one project only */
                    project?: string;
                    /** @description all (default) or current */
                    sessions?: string;
                };
                header?: never;
                path: {
                    id: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description Every line that it logged. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": unknown;
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/runs/{id}/histograms": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The histograms of one key, over steps. */
        get: {
            parameters: {
                query?: {
                    /** @description its key */
                    key?: string;
                    /** @description of the run or study; may be left out where its name is in one project only */
                    project?: string;
                };
                header?: never;
                path: {
                    id: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The histograms of one key, over steps. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["HistogramsOverSteps"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/runs/{id}/media": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Its pictures, texts, tables and others. */
        get: {
            parameters: {
                query?: {
                    /** @description only of this key */
                    key?: string;
                    /** @description how many are told */
                    limit?: string;
                    /** @description how many are passed over */
                    offset?: string;
                    /** @description of the run or study; may be left out where its name is in one project only */
                    project?: string;
                };
                header?: never;
                path: {
                    id: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description Its pictures, texts, tables and others. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["MediaList"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/runs/{id}/media/{media}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** One of them, as it is. */
        get: {
            parameters: {
                query?: {
                    /** @description of the run or study; may be left out where its name is in one project only */
                    project?: string;
                };
                header?: never;
                path: {
                    id: string;
                    media: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description One of them, as it is. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/octet-stream": unknown;
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/runs/{id}/media/{media}/content": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** A text, a table or a histogram as JSON. */
        get: {
            parameters: {
                query?: {
                    /** @description how many are told */
                    limit?: string;
                    /** @description how many are passed over */
                    offset?: string;
                    /** @description of the run or study; may be left out where its name is in one project only */
                    project?: string;
                };
                header?: never;
                path: {
                    id: string;
                    media: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description A text, a table or a histogram as JSON. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["TextContent"] | components["schemas"]["TablePage"] | components["schemas"]["HistogramContent"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/runs/{id}/model": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Its model as a tree. */
        get: {
            parameters: {
                query?: {
                    /** @description of the run or study; may be left out where its name is in one project only */
                    project?: string;
                };
                header?: never;
                path: {
                    id: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description Its model as a tree. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["ModelView"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/runs/{id}/snapshot.html": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** A run as one file. */
        get: {
            parameters: {
                query?: {
                    /** @description of the run or study; may be left out where its name is in one project only */
                    project?: string;
                };
                header?: never;
                path: {
                    id: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description A run as one file. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "text/html": unknown;
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/session": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** 204 for whoever may ask for the rest. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description 204 for whoever may ask for the rest. */
                204: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/studies": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** All studies. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description All studies. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["StudyRow"][];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/studies/{name}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** A study's plan and how its runs stand. */
        get: {
            parameters: {
                query?: {
                    /** @description of the run or study; may be left out where its name is in one project only */
                    project?: string;
                };
                header?: never;
                path: {
                    name: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description A study's plan and how its runs stand. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["StudyPlan"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/studies/{name}/cells": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** A number of every cell. */
        get: {
            parameters: {
                query?: {
                    /** @description of the summary */
                    metric?: string;
                    /** @description of the run or study; may be left out where its name is in one project only */
                    project?: string;
                };
                header?: never;
                path: {
                    name: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description A number of every cell. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["CellValues"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/studies/{name}/comparison": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Its arms against each other. */
        get: {
            parameters: {
                query?: {
                    /** @description of the run or study; may be left out where its name is in one project only */
                    project?: string;
                };
                header?: never;
                path: {
                    name: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description Its arms against each other. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["ArmsComparison"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/studies/{name}/control": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Hold, release, boost, cancel, retry, where that is allowed. */
        post: {
            parameters: {
                query?: {
                    /** @description of the run or study; may be left out where its name is in one project only */
                    project?: string;
                };
                header?: never;
                path: {
                    name: string;
                };
                cookie?: never;
            };
            requestBody?: {
                content: {
                    "application/json": components["schemas"]["Steer"];
                };
            };
            responses: {
                /** @description Hold, release, boost, cancel, retry, where that is allowed. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Steered"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/studies/{name}/snapshot.html": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** A study as one file. */
        get: {
            parameters: {
                query?: {
                    /** @description of the run or study; may be left out where its name is in one project only */
                    project?: string;
                };
                header?: never;
                path: {
                    name: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description A study as one file. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "text/html": unknown;
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/healthz": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** That the server answers; needs no token. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description That the server answers; needs no token. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Health"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
}
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        /**
         * About
         * @description Which server this is, and what may be done through it.
         */
        About: {
            root: string;
            version: string;
            writes: boolean;
        };
        /**
         * ActiveRun
         * @description A run that somebody trains, or that is silent.
         */
        ActiveRun: {
            arm: string;
            loss: number | ("-Infinity" | "Infinity" | "NaN") | null;
            point: string;
            run: string;
            seed: number;
            sessions: number;
            state: string;
            step: number;
            stepped: number | null;
            steps: number;
            study: string;
            val_loss: number | ("-Infinity" | "Infinity" | "NaN") | null;
        };
        /**
         * AlertFact
         * @description Something to look at.
         */
        AlertFact: {
            key: string;
            severity: string;
            study: string;
            t: number;
            text: string;
        };
        /**
         * AnomalyFacts
         * @description One: "not finite" (`count` in a row), "jump", or "spike" of a gradient norm.
         */
        AnomalyFacts: {
            count: number;
            kind: string;
            step: number;
            threshold: number | ("-Infinity" | "Infinity" | "NaN") | null;
            value: number | ("-Infinity" | "Infinity" | "NaN");
        };
        /**
         * ArmsComparison
         * @description What comparing a study's arms is worth now.
         */
        ArmsComparison: {
            arms: components["schemas"]["ArmValue"][];
            baseline: string;
            better: string;
            confidence: number;
            correction: string;
            differences: components["schemas"]["Difference"][];
            finished: number;
            kind: string;
            margin: number | null;
            metric: string;
            planned: number;
            points: string[];
            problem: string;
            question: string;
            seeds: number[];
            statistic: string;
            study: string;
            unequal: components["schemas"]["Unequal"][];
            without: components["schemas"]["WithoutValue"][];
        };
        /**
         * ArmValue
         * @description The primary metric of one arm at one point, over the seeds that have a finite value.
         */
        ArmValue: {
            arm: string;
            diverged: number[];
            high: number | ("-Infinity" | "Infinity" | "NaN") | null;
            low: number | ("-Infinity" | "Infinity" | "NaN") | null;
            mean: number | ("-Infinity" | "Infinity" | "NaN") | null;
            missing: number[];
            n: number;
            planned: number;
            point: string;
            sd: number | ("-Infinity" | "Infinity" | "NaN") | null;
            values: {
                [key: string]: number | ("-Infinity" | "Infinity" | "NaN");
            };
        };
        /**
         * CellFact
         * @description One arm at one point; `place` has a value for each parameter, `runs` are places in `runs`.
         */
        CellFact: {
            arm: string;
            place: unknown[];
            point: string;
            runs: number[];
        };
        /**
         * CellValue
         * @description A number over the accepted runs of a cell; `other` are those that diverged, or whose number
         *         is not finite, `missing` those that are not accepted, or have none.
         */
        CellValue: {
            high: number | ("-Infinity" | "Infinity" | "NaN") | null;
            low: number | ("-Infinity" | "Infinity" | "NaN") | null;
            mean: number | ("-Infinity" | "Infinity" | "NaN") | null;
            missing: number;
            n: number;
            other: number;
        };
        /**
         * CellValues
         * @description A metric of the runs' summaries, for each cell in the order of the plan.
         */
        CellValues: {
            cells: components["schemas"]["CellValue"][];
            metric: string;
            metrics: string[];
            study: string;
        };
        /**
         * Change
         * @description What of a pair is not equal, as text of both sides.
         */
        Change: {
            left: string;
            right: string;
            /** @enum {unknown} */
            what: "class" | "name" | "params" | "settings" | "shapes";
        };
        /**
         * ChartQuery
         * @description One metric of some runs on one axis, in at most `px` stretches.
         */
        ChartQuery: {
            /** @default null */
            group: string | null;
            /** @default null */
            high: number | null;
            /** @enum {unknown} */
            kind: "chart";
            /** @default false */
            log_x: boolean;
            /** @default null */
            low: number | null;
            metric: string;
            /** @default 800 */
            px: number;
            runs: string[];
            /** @default 0 */
            smooth: number;
            /** @default false */
            tails: boolean;
            /** @default step */
            x: string;
        };
        /**
         * Checkpoint
         * @description A complete checkpoint.
         */
        Checkpoint: {
            best: string[];
            latest: boolean;
            pinned: boolean;
            step: number;
        };
        /**
         * Column
         * @description Something that runs have.
         */
        Column: {
            ask: string;
            distinct: number;
            examples: string[];
            kind: string;
            name: string;
            place: string;
            runs: number;
        };
        /**
         * Columns
         * @description All columns: fields, then what runs came to, then how they were set.
         */
        Columns: {
            columns: components["schemas"]["Column"][];
            total: number;
        };
        /**
         * Common
         * @description A setting that is the same in all runs.
         */
        Common: {
            name: string;
            value: unknown;
        };
        /**
         * Comparison
         * @description Runs in the order in which they were asked for.
         */
        Comparison: {
            content: string;
            differ: components["schemas"]["Setting"][];
            equal: components["schemas"]["Common"][];
            metrics: components["schemas"]["MetricLine"][];
            runs: components["schemas"]["TableRow"][];
        };
        /**
         * ConsoleTail
         * @description The end of what a run printed.
         */
        ConsoleTail: {
            lines: string[];
            whole: boolean;
        };
        /**
         * SessionFacts
         * @description One process start within a run.
         */
        "cupel.dashboard.one_run.SessionFacts": {
            changed: string[];
            ended: number | ("-Infinity" | "Infinity" | "NaN") | null;
            error: string | null;
            host: string | null;
            lost: number;
            number: number;
            pid: number | null;
            problems: {
                [key: string]: number;
            };
            seconds: number | ("-Infinity" | "Infinity" | "NaN") | null;
            start_step: number | null;
            started: number | ("-Infinity" | "Infinity" | "NaN") | null;
            status: string;
        };
        /**
         * SessionFacts
         * @description One session: how it ended, and the steps that it went on from.
         */
        "cupel.dashboard.standing.SessionFacts": {
            ended: number | null;
            host: string | null;
            lost: number;
            number: number;
            start_step: number | null;
            started: number | null;
            status: string;
        };
        /**
         * DeviationFact
         * @description A run that was derived from a planned one with other settings; it never counts.
         */
        DeviationFact: {
            of: string;
            run: string;
            status: string;
        };
        /**
         * Difference
         * @description One arm against the baseline at one point: a `Card` of cupel.analysis.comparison.
         */
        Difference: {
            arm: string;
            comparisons: number;
            confidence: number;
            correlation: number | ("-Infinity" | "Infinity" | "NaN") | null;
            detectable: number | ("-Infinity" | "Infinity" | "NaN") | null;
            differences: {
                [key: string]: number | ("-Infinity" | "Infinity" | "NaN");
            };
            diverged_arm: number[];
            diverged_baseline: number[];
            high: number | ("-Infinity" | "Infinity" | "NaN") | null;
            low: number | ("-Infinity" | "Infinity" | "NaN") | null;
            mean: number | ("-Infinity" | "Infinity" | "NaN") | null;
            missing_arm: number[];
            missing_baseline: number[];
            n: number;
            p: number | ("-Infinity" | "Infinity" | "NaN") | null;
            p_adjusted: number | ("-Infinity" | "Infinity" | "NaN") | null;
            point: string;
            reason: string;
            sd: number | ("-Infinity" | "Infinity" | "NaN") | null;
            simultaneous: boolean;
            verdict: ("better" | "equivalent" | "undecided" | "worse") | null;
        };
        /**
         * DiffNode
         * @description A pair, or a module that only one side has; `folds` pairs alike in a row are one.
         */
        DiffNode: {
            /** @default [] */
            changes: components["schemas"]["Change"][];
            /** @default [] */
            children: components["schemas"]["DiffNode"][];
            /** @default 1 */
            folds: number;
            /** @default null */
            left: components["schemas"]["Side"] | null;
            /** @default [] */
            lefts: string[];
            /** @default null */
            right: components["schemas"]["Side"] | null;
            /** @default [] */
            rights: string[];
            /** @enum {unknown} */
            status: "changed" | "left" | "right" | "same";
            /** @default 0 */
            within: number;
        };
        /**
         * Edge
         * @description From one child to another. The empty name is what the container is given, or gives back.
         */
        Edge: {
            inferred: boolean;
            source: string;
            target: string;
        };
        /**
         * Edit
         * @description What to change of a run.
         */
        Edit: {
            /** @default null */
            notes: string | null;
            /** @default [] */
            tags_add: string[];
            /** @default [] */
            tags_remove: string[];
        };
        /**
         * Edited
         * @description What a run's notes and tags are now.
         */
        Edited: {
            notes: string;
            tags: string[];
        };
        /**
         * Environment
         * @description On what and from what the newest session ran.
         */
        Environment: {
            branch: string | null;
            command: string[];
            commit: string | null;
            cpu: string | null;
            dirty: boolean | null;
            gpus: string[];
            host: string | null;
            memory_bytes: number | null;
            packages: {
                [key: string]: string;
            };
            platform: string | null;
            python: string | null;
            torch: string | null;
        };
        /**
         * EtaFacts
         * @description Seconds that are left: the middle, and the ends of a 90 % interval.
         */
        EtaFacts: {
            high: number | ("-Infinity" | "Infinity" | "NaN");
            low: number | ("-Infinity" | "Infinity" | "NaN");
            middle: number | ("-Infinity" | "Infinity" | "NaN");
        };
        /**
         * FailedRun
         * @description A run that failed, or waits for another try.
         */
        FailedRun: {
            attempts: number;
            reason: string;
            run: string;
            state: string;
            study: string;
        };
        /**
         * Failures
         * @description All that failed of one class: how many for good, how many are tried again, the first few.
         */
        Failures: {
            advice: string;
            again: number;
            count: number;
            kind: string;
            runs: components["schemas"]["FailedRun"][];
        };
        /**
         * Forecast
         * @description When the last run will be done, in Unix seconds: the median, and the 10–90 % interval.
         */
        Forecast: {
            at: number;
            high: number;
            low: number;
        };
        /**
         * Group
         * @description The runs that have one value in common.
         */
        Group: {
            by_status: {
                [key: string]: number;
            };
            count: number;
            name: string | null;
            numbers: {
                [key: string]: components["schemas"]["Spread"];
            };
        };
        /**
         * Health
         * @description That the server answers.
         */
        Health: {
            clients: number;
            protocol: string;
            server: string;
            service: string;
            status: string;
            uptime_s: number;
        };
        /**
         * HistogramContent
         * @description How many values lie between which edges, of which there is one more.
         */
        HistogramContent: {
            counts: (number | ("-Infinity" | "Infinity" | "NaN"))[];
            edges: (number | ("-Infinity" | "Infinity" | "NaN"))[];
            /** @enum {unknown} */
            kind: "histogram";
            not_finite: number;
        };
        /**
         * HistogramsOverSteps
         * @description The histograms of a key under common edges, a list of counts for each of some steps.
         */
        HistogramsOverSteps: {
            counts: (number | ("-Infinity" | "Infinity" | "NaN"))[][];
            edges: (number | ("-Infinity" | "Infinity" | "NaN"))[];
            key: string;
            of: number;
            steps: number[];
        };
        /**
         * Hold
         * @description Runs of a study that are held for one reason; `by_breaker`: since others failed alike.
         */
        Hold: {
            by_breaker: boolean;
            count: number;
            runs: string[];
            study: string;
            why: string;
        };
        /**
         * MediaKey
         * @description What one key has: how many media, of which kinds, from which step to which.
         */
        MediaKey: {
            count: number;
            first: number | null;
            key: string;
            kinds: string[];
            last: number | null;
        };
        /**
         * MediaList
         * @description The media that count, oldest first: `total` of them, and those from `offset` on.
         */
        MediaList: {
            items: components["schemas"]["Medium"][];
            keys: components["schemas"]["MediaKey"][];
            offset: number;
            total: number;
        };
        /**
         * Medium
         * @description One medium of a step.
         */
        Medium: {
            bytes: number | null;
            caption: string | null;
            height: number | null;
            id: string;
            key: string;
            kind: string;
            name: string;
            rows: number | null;
            session: number;
            step: number | null;
            time: number | null;
            type: string;
            width: number | null;
        };
        /**
         * MetricAnomalies
         * @description Those of one metric: how many in all, and the newest.
         */
        MetricAnomalies: {
            metric: string;
            points: number;
            shown: components["schemas"]["AnomalyFacts"][];
            total: number;
        };
        /**
         * MetricFacts
         * @description One metric of a run.
         */
        MetricFacts: {
            goal: string | null;
            kind: string;
            name: string;
            rule: string;
            value: number | boolean | string | unknown[] | null;
        };
        /**
         * MetricLine
         * @description One statistic of one metric in all runs.
         */
        MetricLine: {
            best: number[];
            goal: string | null;
            name: string;
            statistic: string;
            steps: (number | null)[];
            unlike: string | null;
            values: (number | boolean | string | unknown[] | null)[];
        };
        /**
         * MetricsQuery
         * @description What some runs log.
         */
        MetricsQuery: {
            /** @enum {unknown} */
            kind: "metrics";
            runs: string[];
        };
        /**
         * MetricsState
         * @description The names of all metrics of some runs, in the order in which they came, and references.
         */
        MetricsState: {
            metrics: string[];
            references: components["schemas"]["Reference"][];
        };
        /**
         * ModelDiff
         * @description `available` is false where one of the two cannot be shown, and `reason` says why.
         */
        ModelDiff: {
            available: boolean;
            left: components["schemas"]["ModelView"];
            reason: string;
            right: components["schemas"]["ModelView"];
            root: components["schemas"]["DiffNode"] | null;
            same: boolean;
        };
        /**
         * ModelView
         * @description `available` is false where there is no tree to show, and `reason` says why.
         */
        ModelView: {
            available: boolean;
            /** @default  */
            class: string;
            /** @default 0 */
            n_params: number;
            /** @default {} */
            problems: {
                [key: string]: string;
            };
            /** @default  */
            reason: string;
            /** @default null */
            root: components["schemas"]["Node"] | null;
            /** @default null */
            seen: components["schemas"]["Seen"] | null;
            /** @default [] */
            sizes: components["schemas"]["Size"][];
            /** @default 0 */
            trained: number;
        };
        /**
         * Node
         * @description A module, or several alike in a row: then `folds` says how many, `members` has each of them,
         *         and the numbers of parameters are theirs together.
         */
        Node: {
            /** @default [] */
            also: string[];
            /** @default null */
            calls: number | null;
            /** @default [] */
            children: components["schemas"]["Node"][];
            class: string;
            /** @default [] */
            dtypes: string[];
            /** @default [] */
            edges: components["schemas"]["Edge"][];
            /** @default  */
            extra: string;
            /** @default 1 */
            folds: number;
            /** @default null */
            grad_norm: components["schemas"]["Reading"] | null;
            /** @default null */
            inputs: components["schemas"]["TensorShape"][] | null;
            /** @default [] */
            members: components["schemas"]["Node"][];
            module: string;
            name: string;
            /** @default null */
            order: number | null;
            /** @default null */
            outputs: components["schemas"]["TensorShape"][] | null;
            own: number;
            path: string;
            /** @default [] */
            paths: string[];
            share: number;
            /** @default null */
            shared_with: string | null;
            /** @default [] */
            tensors: components["schemas"]["Tensor"][];
            total: number;
            /** @default null */
            trainable: ("all" | "none" | "some") | null;
            /** @default null */
            unfolded_edges: components["schemas"]["Edge"][] | null;
            /** @default false */
            varies: boolean;
            /** @default null */
            weight_norm: components["schemas"]["Reading"] | null;
        };
        /**
         * PaceFacts
         * @description Steps a second without pauses, and over all; seconds and number of the pauses.
         */
        PaceFacts: {
            overall: number | ("-Infinity" | "Infinity" | "NaN");
            paused_s: number | ("-Infinity" | "Infinity" | "NaN");
            pauses: number;
            velocity: number | ("-Infinity" | "Infinity" | "NaN");
        };
        /**
         * Parameter
         * @description An axis of the study's points: as points call it, its dotted setting, and its values.
         */
        Parameter: {
            name: string;
            setting: string;
            values: unknown[];
        };
        /**
         * Point
         * @description One number as it was logged.
         */
        Point: {
            elapsed: number | null;
            run: string;
            session: number | null;
            smooth: number | ("-Infinity" | "Infinity" | "NaN") | null;
            step: number;
            time: number | null;
            value: number | ("-Infinity" | "Infinity" | "NaN");
            x: number;
        };
        /**
         * Quarantine
         * @description A place where no run begins for an hour; without a device it is the whole host.
         */
        Quarantine: {
            device: string;
            host: string;
            study: string;
            why: string;
        };
        /**
         * QueuedStudy
         * @description A study with open work, or one that cannot be read: `problem` says why.
         */
        QueuedStudy: {
            counts: {
                [key: string]: number;
            };
            eta: components["schemas"]["Forecast"] | null;
            key: string;
            of_steps: number;
            open: number;
            problem: string;
            question: string;
            steps: number;
            total: number;
            unknown: string;
        };
        /**
         * QueueQuery
         * @description Every study that has work left, its workers and alerts.
         */
        QueueQuery: {
            /** @enum {unknown} */
            kind: "queue";
        };
        /**
         * QueueState
         * @description Every study that has work left, who works, and what failed anywhere.
         */
        QueueState: {
            active: components["schemas"]["ActiveRun"][];
            active_total: number;
            alerts: components["schemas"]["AlertFact"][];
            failures: components["schemas"]["Failures"][];
            holds: components["schemas"]["Hold"][];
            quarantined: components["schemas"]["Quarantine"][];
            settled: number;
            studies: components["schemas"]["QueuedStudy"][];
            workers: components["schemas"]["WorkerFact"][];
        };
        /**
         * Reading
         * @description A number of the record and its step.
         */
        Reading: {
            step: number;
            value: number | ("-Infinity" | "Infinity" | "NaN");
        };
        /**
         * Reference
         * @description A value to hold a metric against.
         */
        Reference: {
            label: string;
            metric: string;
            value: number | ("-Infinity" | "Infinity" | "NaN");
        };
        /**
         * RunAnomalies
         * @description Of each metric that is a loss or a gradient norm.
         */
        RunAnomalies: {
            anomalies: components["schemas"]["MetricAnomalies"][];
            run: string;
        };
        /**
         * RunFact
         * @description One planned run, and how it stands.
         */
        RunFact: {
            attempts: number;
            cell: number;
            loss: number | ("-Infinity" | "Infinity" | "NaN") | null;
            reason: string;
            run: string;
            seconds: number;
            seed: number;
            sessions: number;
            state: string;
            step: number;
            steps: number;
            val_loss: number | ("-Infinity" | "Infinity" | "NaN") | null;
            value: number | ("-Infinity" | "Infinity" | "NaN") | null;
        };
        /**
         * RunFacts
         * @description What a run is.
         */
        RunFacts: {
            checkpoints: components["schemas"]["Checkpoint"][];
            config: Record<string, never>;
            damaged_lines: number;
            environment: components["schemas"]["Environment"] | null;
            metrics: components["schemas"]["MetricFacts"][];
            notes: string;
            origins: {
                [key: string]: string;
            };
            problem: string | null;
            results: Record<string, never> | null;
            row: components["schemas"]["TableRow"];
            sessions: components["schemas"]["cupel.dashboard.one_run.SessionFacts"][];
            settings: Record<string, never>;
            summary: Record<string, never>;
        };
        /**
         * RunQuery
         * @description How one run stands: status, pace, newest numbers.
         */
        RunQuery: {
            /** @enum {unknown} */
            kind: "run";
            run: string;
        };
        /**
         * RunsQuery
         * @description Whether the table of runs has changed, and how many runs are in which state.
         */
        RunsQuery: {
            /** @enum {unknown} */
            kind: "runs";
        };
        /**
         * RunsState
         * @description The table of runs in short: how many in all and by status, and a name of its contents.
         */
        RunsState: {
            by_status: {
                [key: string]: number;
            };
            content: string;
            newest: string | null;
            projects: {
                [key: string]: number;
            };
            total: number;
        };
        /**
         * RunState
         * @description What a page shows of a run at its head.
         */
        RunState: {
            alive: boolean;
            anomalies: number;
            arm: string | null;
            average: number | ("-Infinity" | "Infinity" | "NaN") | null;
            best: number | ("-Infinity" | "Infinity" | "NaN") | null;
            best_step: number | null;
            created: number;
            current: number | ("-Infinity" | "Infinity" | "NaN") | null;
            damaged_lines: number;
            eta: components["schemas"]["EtaFacts"] | null;
            headline: string | null;
            heartbeat: number | null;
            id: string;
            last_line: number | null;
            metrics: number;
            name: string | null;
            notes: string | null;
            pace: components["schemas"]["PaceFacts"] | null;
            project: string;
            run: string;
            session: number;
            sessions: components["schemas"]["cupel.dashboard.standing.SessionFacts"][];
            status: string;
            step: number | null;
            steps: number | null;
            study: string | null;
            tags: string[];
            throughput: number | ("-Infinity" | "Infinity" | "NaN") | null;
            throughput_unit: string;
            trend: components["schemas"]["TrendFacts"] | null;
            why: string | null;
        };
        /**
         * Seen
         * @description Whether the first training pass was seen, in which step, and what is missing of it.
         */
        Seen: {
            complete: boolean;
            reason: string | null;
            step: number | null;
        };
        /**
         * Setting
         * @description A setting of which the runs have different values.
         */
        Setting: {
            name: string;
            there: boolean[];
            values: unknown[];
        };
        /**
         * Side
         * @description A module of one of the two.
         */
        Side: {
            class: string;
            name: string;
            params: number;
            path: string;
        };
        /**
         * Size
         * @description One of the model's main sizes, and what says it.
         */
        Size: {
            name: string;
            source: string;
            value: number | number[];
        };
        /**
         * Spread
         * @description What the numbers of a column come to in a group; all three are null without a finite one.
         */
        Spread: {
            max: number | null;
            mean: number | null;
            min: number | null;
            n: number;
            not_finite: number;
        };
        /**
         * Steer
         * @description What is asked, and of which runs: ids, a filter, `failed` (for retry), or `all`; or, for
         *         release, a host that is in quarantine.
         */
        Steer: {
            /** @default false */
            all: boolean;
            /** @default [] */
            arms: string[];
            /** @default false */
            failed: boolean;
            /** @default  */
            host: string;
            /** @default null */
            priority: number | null;
            /** @default [] */
            runs: string[];
            /** @default [] */
            tags: string[];
            /** @enum {unknown} */
            what: "boost" | "cancel" | "hold" | "release" | "retry";
            /** @default [] */
            where: string[];
            /** @default  */
            why: string;
        };
        /**
         * Steered
         * @description What was asked, and of how many runs.
         */
        Steered: {
            runs: number;
            study: string;
            what: string;
        };
        /**
         * StudyPlan
         * @description What a study is to decide and how, every cell and run of it, and how they stand.
         */
        StudyPlan: {
            about: string;
            arms: {
                [key: string]: Record<string, never>;
            };
            baseline: string;
            better: string;
            cells: components["schemas"]["CellFact"][];
            confidence: number;
            correction: string;
            created: number;
            deviations: components["schemas"]["DeviationFact"][];
            key: string;
            kind: string;
            letters: {
                [key: string]: string;
            };
            margin: number | null;
            metric: string;
            name: string;
            parameters: components["schemas"]["Parameter"][];
            parts: number;
            project: string;
            question: string;
            runs: components["schemas"]["RunFact"][];
            seeds: number[];
            state: components["schemas"]["StudyState"];
            statistic: string;
        };
        /**
         * StudyQuery
         * @description How a study stands.
         */
        StudyQuery: {
            /** @enum {unknown} */
            kind: "study";
            study: string;
        };
        /**
         * StudyRow
         * @description A study in the list; `problem` says why one cannot be read.
         */
        StudyRow: {
            about: string;
            alerts: number;
            arms: string[];
            cells: number;
            counts: {
                [key: string]: number;
            };
            created: number | null;
            eta: components["schemas"]["Forecast"] | null;
            key: string;
            metric: string;
            name: string;
            newest: number | null;
            of_steps: number;
            over: boolean;
            problem: string;
            project: string;
            question: string;
            runs: number;
            steps: number;
        };
        /**
         * StudyState
         * @description How a study stands.
         */
        StudyState: {
            active: components["schemas"]["ActiveRun"][];
            alerts: components["schemas"]["AlertFact"][];
            counts: {
                [key: string]: number;
            };
            ended: string;
            eta: components["schemas"]["Forecast"] | null;
            key: string;
            marks: string;
            newest: number | null;
            of_steps: number;
            over: boolean;
            plan: string;
            question: string;
            runs_per_hour: number;
            slots: number;
            steps: number;
            steps_per_s: number;
            total: number;
            unknown: string;
            workers: components["schemas"]["WorkerFact"][];
        };
        /**
         * Table
         * @description A window of the runs that a filter means.
         */
        Table: {
            by_status: {
                [key: string]: number;
            };
            content: string;
            groups: components["schemas"]["Group"][];
            matched: number;
            offset: number;
            rows: components["schemas"]["TableRow"][];
            total: number;
            unknown: string[];
        };
        /**
         * TablePage
         * @description Some rows of a table of `total`; a cell that is a medium is {"media": id, "kind": …}.
         */
        TablePage: {
            columns: string[];
            /** @enum {unknown} */
            kind: "table";
            offset: number;
            rows: unknown[][];
            total: number;
        };
        /**
         * TableRow
         * @description One run in the table.
         */
        TableRow: {
            arm: string | null;
            created: number | ("-Infinity" | "Infinity" | "NaN");
            id: string;
            key: string;
            name: string | null;
            notes: string | null;
            problem: string | null;
            project: string;
            seconds: number | ("-Infinity" | "Infinity" | "NaN");
            seed: number | boolean | string | unknown[] | null;
            sessions: number;
            status: string;
            step: number | null;
            study: string | null;
            tags: string[];
            /** @default {} */
            values: {
                [key: string]: number | boolean | string | unknown[] | null;
            };
        };
        /**
         * Tensor
         * @description A parameter or a buffer that is a module's own.
         */
        Tensor: {
            /** @default false */
            buffer: boolean;
            dtype: string;
            name: string;
            numbers: number;
            shape: number[] | null;
            /** @default null */
            tied_to: string | null;
            /** @default false */
            trained: boolean;
        };
        /**
         * TensorShape
         * @description What a module took or gave.
         */
        TensorShape: {
            dtype: string;
            shape: number[] | null;
        };
        /**
         * TextContent
         * @description A text, or its beginning; `bytes` is how long all of it is.
         */
        TextContent: {
            bytes: number;
            /** @enum {unknown} */
            kind: "text";
            text: string;
        };
        /**
         * TrendFacts
         * @description falling, flat, rising, noisy or not finite; over which steps and how many points.
         */
        TrendFacts: {
            high: number | ("-Infinity" | "Infinity" | "NaN");
            label: string;
            low: number | ("-Infinity" | "Infinity" | "NaN");
            points: number;
        };
        /**
         * Unequal
         * @description What an arm does not have in common with the baseline.
         */
        Unequal: {
            arm: string;
            baseline: string;
            name: string;
            value: string;
        };
        /**
         * WithoutValue
         * @description A run that is not in the comparison, and why.
         */
        WithoutValue: {
            arm: string;
            point: string;
            reason: string;
            run: string;
            seed: number;
            status: string;
        };
        /**
         * WorkerFact
         * @description Who works on a study: "alive", "silent" or "dead", and which runs it trains.
         */
        WorkerFact: {
            host: string;
            pid: number;
            running: string[];
            slots: number;
            state: string;
            study: string;
            worker: string;
        };
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type $defs = Record<string, never>;
export type operations = Record<string, never>;
