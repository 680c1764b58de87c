/* A stand-in for nvidia-smi: the summary, -L, --query-gpu and --query-compute-apps, in NVIDIA's words. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "smi.h"

struct options {
    const char *gpu_fields, *app_fields, *id;
    bool list;
    struct format format;
    long loop_ms;
};

static int help(void) {
    puts("NVIDIA System Management Interface -- simulated by tests/rig: there is no such hardware here\n\n"
         "nvidia-smi [-L] [-i ID] [-l SEC | -lms MS]\n"
         "nvidia-smi --query-gpu=FIELD,... --format=csv[,noheader][,nounits]\n"
         "nvidia-smi --query-compute-apps=FIELD,... --format=csv[,noheader][,nounits]");
    return EXIT_SUCCESS;
}

static int refuse(void) {
    puts("Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.\n");
    return EXIT_USAGE;
}

/* `--name=value`, or `-n value`. */
static const char *value_of(const char *name, const char *letter, char ***argument) {
    size_t length = strlen(name);
    if (strncmp(**argument, name, length) == 0 && (**argument)[length] == '=') {
        return **argument + length + 1;
    }
    if ((strcmp(**argument, name) == 0 || (letter && strcmp(**argument, letter) == 0)) && (*argument)[1]) {
        return *++*argument;
    }
    return NULL;
}

static bool read_format(const char *text, struct format *format) {
    char copy[64];
    char *list = copy, *word;
    bool csv = false;
    if (strlen(text) >= sizeof copy) {
        return false;
    }
    strcpy(copy, text);
    *format = (struct format){true, true};
    while ((word = smi_next(&list))) {
        if (strcmp(word, "csv") == 0) {
            csv = true;
        } else if (strcmp(word, "noheader") == 0) {
            format->header = false;
        } else if (strcmp(word, "nounits") == 0) {
            format->units = false;
        } else {
            return false;
        }
    }
    return csv;
}

static bool read_options(char **argument, struct options *options) {
    bool csv = false;
    for (; *argument; argument++) {
        const char *value;
        if (strcmp(*argument, "-L") == 0 || strcmp(*argument, "--list-gpus") == 0) {
            options->list = true;
        } else if ((value = value_of("--query-gpu", NULL, &argument))) {
            options->gpu_fields = value;
        } else if ((value = value_of("--query-compute-apps", NULL, &argument))) {
            options->app_fields = value;
        } else if ((value = value_of("--format", NULL, &argument))) {
            csv = true;
            if (!read_format(value, &options->format)) {
                return false;
            }
        } else if ((value = value_of("--id", "-i", &argument))) {
            options->id = value;
        } else if ((value = value_of("--loop-ms", "-lms", &argument))) {
            options->loop_ms = atol(value);
        } else if ((value = value_of("--loop", "-l", &argument))) {
            options->loop_ms = 1000 * atol(value);
        } else {
            return false;
        }
    }
    return csv == (options->gpu_fields || options->app_fields);
}

static int once(const struct options *options) {
    struct device devices[MAX_DEVICES];
    unsigned count;
    int code = smi_devices(options->id, devices, &count);
    if (code) {
        return code;
    }
    if (options->gpu_fields) {
        return smi_query(options->gpu_fields, options->format, devices, count);
    }
    if (options->app_fields) {
        return smi_apps(options->app_fields, options->format, devices, count);
    }
    if (options->list) {
        smi_list(devices, count);
    } else {
        smi_table(devices, count);
    }
    return EXIT_SUCCESS;
}

int main(int count, char **argument) {
    struct options options = {0};
    if (count > 1 && (strcmp(argument[1], "-h") == 0 || strcmp(argument[1], "--help") == 0)) {
        return help();
    }
    if (!read_options(argument + 1, &options)) {
        return refuse();
    }
    int code = smi_start();
    if (code) {
        return code;
    }
    code = once(&options);
    while (!code && options.loop_ms > 0) {
        struct timespec pause = {options.loop_ms / 1000, options.loop_ms % 1000 * 1000000L};
        fflush(stdout);
        nanosleep(&pause, NULL);
        options.format.header = false;
        code = once(&options);
    }
    return code;
}
