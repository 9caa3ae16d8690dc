def show(count):
    return 0
