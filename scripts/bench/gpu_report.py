"""The tables of scripts/bench/gpu_bench.sh: reads its rows (one JSON object a line, the first says what machine it was) and
writes RECORD.md, for people, and RECORD_summary.json, the same as numbers.

    python3 scripts/bench/gpu_report.py RECORD.json

Ratios are to PyTorch's rows of the same run. Goals are those of one H200 with 141 GB at 4.8 TB/s; on another GPU only the
ratios and the shares of the measured copy bandwidth compare."""
import json
import sys

# what, model, size, batch: [figure, goal, times PyTorch eager, times the compiled one]
GOALS = {
    ('train', 'mavit_t', '224x224', 256): ['images_per_s', 9500, 4.5, 2.2],
    ('train', 'mavit_s', '224x224', 256): ['images_per_s', 5419, None, None],  # 55 % of 9,852
    ('train', 'mavit_b', '224x224', 256): ['images_per_s', 2962, None, None],  # 55 % of 5,386
    ('train', 'mavit_t', '32x32', 256): ['images_per_s', 150000, None, None],
    ('infer', 'mavit_t', '224x224', 256): ['images_per_s', 30000, 5, 2],
    ('infer', 'mavit_t', '224x224', 1): ['ms', 0.35, None, None],
    ('infer', 'mavit_t', '512x2048', 1): ['ms', 1.0, 7, None],
    ('infer', 'mavit_t', '2048x2048', 1): ['ms', 7, None, None],
    ('infer', 'mavit_t', '4096x4096', 1): [None, None, None, None],
}
TIME_PER_PIXEL = 1.6      # of 512x2048 against 224x224
ACTIVATIONS_MB = 36       # of an image, MAViT-T at 224
SHARE = 0.75              # of the measured copy, norms, elementwise work and AdamW
SHARE_STENCIL = 0.60      # depthwise convolutions and linear attention
LAUNCH_US = 10            # a call that needs less than this at its goal is bound by its launch, not by memory


def goal_of(op):
    """Share of the copy bandwidth that a kind of op should reach; None: products, which memory does not bound."""
    word = op.split()[0].removesuffix('_bwd')
    if op.startswith('dwconv') or (word == 'attention' and not op.endswith('softmax')):
        return SHARE_STENCIL
    memory_bound = {'layer_norm', 'batch_norm', 'batch_norm_eval', 'gelu', 'silu', 'residual', 'add', 'zeros', 'normalize',
                    'cast', 'multiply', 'adamw', 'ema', 'grad_norm'}
    return SHARE if word in memory_bound else None


def full_size(size):
    return size if 'x' in size else f'{size}x{size}'


def key_of(row):
    model = row['model'].lower()
    return row['what'], model if model.startswith('mavit') else f'mavit_{model}', full_size(row['size']), row['batch']


def ratio(mala, torch):
    return torch['ms'] / mala['ms'] if mala and torch and 'ms' in mala and 'ms' in torch else None


def is_plain(row):
    return row.get('capture', True) and not row.get('upload') and not row.get('kept')


def compare(rows):
    """A line for each thing measured: mala, PyTorch's two ways, and mala's ratio to each and to the faster one."""
    of = {}
    for row in rows:
        if row['what'] in ('infer', 'train') and is_plain(row):
            of.setdefault(key_of(row), {})['mala' if row['program'] == 'mala' else row['mode']] = row
    lines = []
    for key, by in of.items():
        mala, eager, compiled = by.get('mala'), by.get('eager'), by.get('compile_channels_last')
        line = dict(zip(('what', 'model', 'size', 'batch'), key), mala=mala, eager=eager, compiled=compiled,
                    to_eager=ratio(mala, eager), to_compiled=ratio(mala, compiled))
        both = [r for r in (line['to_eager'], line['to_compiled']) if r is not None]
        line['to_faster'] = min(both) if both else None
        figure, goal, eager_goal, compiled_goal = GOALS.get(key, [None] * 4)
        line |= {'figure': figure, 'goal': goal, 'goal_to_eager': eager_goal, 'goal_to_compiled': compiled_goal}
        lines.append(line)
    return lines


def kernels(row, copy, product):
    """The kinds of op of one measured network, with what each is held against. copy: GB/s; product: TFLOP/s or None."""
    lines = []
    for op in row.get('ops', []):
        line = dict(op, of=' '.join(map(str, key_of(row))), goal=goal_of(op['op']), share=None)
        line['floor_ms'] = 1e3 * op['gb_least'] / copy
        if product:
            line['floor_ms'] = max(line['floor_ms'], op['gflop'] / product)
        if op['ms'] > 0:
            line['gb_per_s'] = 1e3 * op['gb_moved'] / op['ms']
            line['share'] = line['gb_per_s'] / copy
        if line['goal'] and line['share'] is not None:
            us_at_goal = 1e6 * op['gb_moved'] / op['calls'] / copy / line['goal']
            line['verdict'] = ('reached' if line['share'] >= line['goal'] else
                               'bound by its launch' if us_at_goal < LAUNCH_US else 'BELOW')
        lines.append(line)
    return lines


def text(value, form='{:.2f}'):
    return '' if value is None else form.format(value)


def figure(row):
    if row is None:
        return ''
    if 'ms' not in row:
        return row.get('error', 'failed')
    return f"{row['ms']:.3f} ms, {row['images_per_s']:.0f}/s"


def print_comparison(out, lines):
    print('## Speed\n\nMedian time of a step, and images a second; ratios are of times, the faster of both ways of PyTorch last.'
          '\n\n| what | model | size | batch | mala | PyTorch eager | compiled, channels-last | to eager | to compiled | '
          'to the faster | goal on an H200 |\n|---|---|---|--:|---|---|---|--:|--:|--:|---|', file=out)
    for x in lines:
        goal = [f"{x['goal']} {'ms' if x['figure'] == 'ms' else 'images/s'}"] if x['goal'] else []
        goal += [f"{x[f'goal_to_{way}']}x {way}" for way in ('eager', 'compiled') if x[f'goal_to_{way}']]
        print(f"| {x['what']} | {x['model']} | {x['size']} | {x['batch']} | {figure(x['mala'])} | {figure(x['eager'])} | "
              f"{figure(x['compiled'])} | {text(x['to_eager'])} | {text(x['to_compiled'])} | {text(x['to_faster'])} | "
              f"{', '.join(goal)} |", file=out)
    print(file=out)


def of_rows(lines, what, size, batch):
    for x in lines:
        if (x['what'], x['model'], x['size'], x['batch']) == (what, 'mavit_t', size, batch) and x['mala'] and 'ms' in x['mala']:
            return x['mala']
    return None


def over_plain(rows, lines, name, way):
    """Times of rows of mala's in another way, over those of the same network as it is benched otherwise."""
    derived = {}
    for row in rows:
        plain = next((x['mala'] for x in lines if way(row) and 'ms' in row and
                      (x['what'], x['model'], x['size'], x['batch']) == key_of(row)), None)
        if plain and 'ms' in plain:
            what, model, size, batch = key_of(row)
            derived[f'{name}, {what} {model} {size} batch {batch}: time over that without'] = [row['ms'] / plain['ms'], None]
    return derived


def print_derived(out, rows, lines):
    small, wide = of_rows(lines, 'infer', '224x224', 256), of_rows(lines, 'infer', '512x2048', 1)
    train = of_rows(lines, 'train', '224x224', 256)
    derived = over_plain(rows, lines, 'pictures uploaded for every step', lambda row: row.get('upload'))
    derived |= over_plain(rows, lines, 'steps launched one by one', lambda row: not row.get('capture', True))
    derived |= over_plain(rows, lines, 'train.recompute=none', lambda row: row.get('kept'))
    if small and wide:
        derived['time per pixel, 512x2048 against 224x224'] = [
            wide['ms'] / (512 * 2048) / (small['ms'] / (256 * 224 * 224)), TIME_PER_PIXEL]
    if train:
        derived['MB of activations an image, MAViT-T training'] = [train['arena_mb'] * 2**20 / 1e6 / 256, ACTIVATIONS_MB]
    for row in rows:
        if row.get('kept') and 'arena_mb' in row:
            derived[f"MB of activations an image, {' '.join(map(str, key_of(row)))}, train.recompute=none"] = [
                row['arena_mb'] * 2**20 / 1e6 / row['batch'], None]
    for name, (value, most) in derived.items():
        print(f"* {name}: {value:.2f}{f', at most {most}' if most else ''}", file=out)
    print(file=out)
    return {name: value for name, (value, most) in derived.items()}


def print_kernels(out, row, lines):
    print(f"## Kernels of {row['what']}, {row['model']}, {full_size(row['size'])}, batch {row['batch']}\n\n"
          'Launched one by one, so that each can be timed. Moved: what its kernels read and write; floor: every operand once '
          'at the speed of the copy, or the products at that of a large one.\n\n'
          '| op | calls | ms | GB moved | GB/s | of the copy | goal | floor, ms | time over floor | |\n'
          '|---|--:|--:|--:|--:|--:|--:|--:|--:|---|', file=out)
    for x in lines:
        over = x['ms'] / x['floor_ms'] if x['floor_ms'] > 0 else None
        print(f"| {x['op']} | {x['calls']} | {x['ms']:.3f} | {x['gb_moved']:.3f} | {text(x.get('gb_per_s'), '{:.0f}')} | "
              f"{text(x['share'], '{:.0%}')} | {text(x['goal'], '{:.0%}')} | {x['floor_ms']:.3f} | {text(over, '{:.1f}')} | "
              f"{x.get('verdict', '')} |", file=out)
    below = sorted({x['op'] for x in lines if x.get('verdict') == 'BELOW'})
    print(f"\n{'To be explained: ' + ', '.join(below) if below else 'None is below its goal.'}\n", file=out)


def main():
    record = sys.argv[1]
    with open(record) as lines:
        machine, *rows = [json.loads(line) for line in lines]
    copies = [row['gb_per_s'] for row in rows if row['what'] == 'copy']
    products = [row['tflop_per_s'] for row in rows if row['what'] == 'product']
    product = products[0] if products else None
    comparison = compare(rows)
    summary = {'machine': machine, 'copy_gb_per_s': copies[0] if copies else None, 'product_tflop_per_s': product,
               'speed': comparison, 'kernels': []}
    base = record.removesuffix('.json')
    with open(base + '.md', 'w') as out:
        print(f"# {machine['gpu']}, {machine['date']}\n\nDriver {machine['driver']}, CUDA {machine['toolkit']}, commit "
              f"{machine['commit']}. A copy on the device {text(summary['copy_gb_per_s'], '{:.0f} GB/s')}, read and written; "
              f"a large bfloat16 product {text(product, '{:.0f} TFLOP/s') or 'not measured'}.\n", file=out)
        print_comparison(out, comparison)
        summary['derived'] = print_derived(out, rows, comparison)
        for row in rows:
            if row.get('ops') and copies:
                of_row = kernels(row, copies[0], product)
                print_kernels(out, row, of_row)
                summary['kernels'] += of_row
    for line in comparison:
        for who in ('mala', 'eager', 'compiled'):
            if line[who]:
                line[who] = {k: v for k, v in line[who].items() if k != 'ops'}
    with open(base + '_summary.json', 'w') as out:
        json.dump(summary, out, indent=1)
        out.write('\n')


if __name__ == '__main__':
    main()
